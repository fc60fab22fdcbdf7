//! The scheme `aes-siv`: AES-256-SIV (RFC 5297), which is deterministic and authenticated.

use std::cell::RefCell;

use aes::Aes256Enc;
use aes_siv::KeyInit as _;
use aes_siv::siv::{IV_SIZE, Siv};
use arrayvec::ArrayVec;

use super::{Cipher, MAX_ID_BYTES, Unreadable};
use crate::mac::CachedCmac;

/// Version of the token's format, which is authenticated with each value. Together with the key id it usually fills one
/// block.
const FORMAT: &[u8] = b"siv1$";

/// A key of AES-256-SIV: one half for the tag, one for the encryption. It is wiped when dropped.
pub(crate) struct AesSiv {
    /// The data authenticated with each value: the format's version and the key's id.
    header: ArrayVec<u8, { FORMAT.len() + MAX_ID_BYTES }>,
    /// Uses only the encryption direction of AES, which is all that SIV needs. Using it changes it and restores it; it is
    /// never lent out.
    siv: RefCell<Siv<Aes256Enc, CachedCmac>>,
}

impl Cipher for AesSiv {
    const PREFIX: &'static str = "$siv$";
    const KEY_BYTES: usize = 64;
    const TAG_BYTES: usize = IV_SIZE;

    fn new(id: &str, key: &[u8]) -> Self {
        let header = FORMAT.iter().copied().chain(id.bytes()).collect();
        let key = key.try_into().expect("a key of 64 bytes");
        Self { header, siv: RefCell::new(Siv::new(key)) }
    }

    fn seal(&self, sealed: &mut [u8]) {
        let (tag, text) = sealed.split_at_mut(IV_SIZE);
        let sealing = self.siv.borrow_mut().encrypt_inout_detached([&self.header], text.into());
        // This error must not be ignored: the value would stay in plain text.
        tag.copy_from_slice(&sealing.expect("it fails for more than 126 headers alone"));
    }

    fn open(&self, sealed: &mut [u8]) -> Result<(), Unreadable> {
        let (tag, text) = sealed.split_at_mut(IV_SIZE);
        let tag = (&*tag).try_into().map_err(|_| Unreadable::NotAToken)?;
        self.siv
            .borrow_mut()
            .decrypt_inout_detached([&self.header], text.into(), &tag)
            .map_err(|_| Unreadable::NotAuthentic)
    }
}

#[cfg(test)]
mod tests {
    use aes_siv::KeyInit as _;
    use aes_siv::siv::Aes128Siv;
    use hex_literal::hex;

    #[test]
    fn the_cipher_is_that_of_rfc_5297() {
        // Test vectors of AES-128-SIV: appendix A.1, deterministic, and A.2, with a nonce. It differs only in the block cipher.
        let seal = |key: [u8; 32], headers: &[&[u8]], text: &[u8]| {
            let mut text = text.to_vec();
            let mut cipher = Aes128Siv::new(&key.into());
            let tag =
                cipher.encrypt_inout_detached(headers, text.as_mut_slice().into()).expect("few headers");
            [&tag, text.as_slice()].concat()
        };
        assert_eq!(
            seal(
                hex!("fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff"),
                &[&hex!("101112131415161718191a1b1c1d1e1f2021222324252627")],
                &hex!("112233445566778899aabbccddee"),
            ),
            hex!("85632d07c6e8f37f950acd320a2ecc9340c02b9690c4dc04daef7f6afe5c")
        );
        assert_eq!(
            seal(
                hex!("7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f"),
                &[
                    &hex!("00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100"),
                    &hex!("102030405060708090a0"),
                    &hex!("09f911029d74e35bd84156c5635688c0"),
                ],
                &hex!(
                    "7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67205349562d414553"
                ),
            ),
            hex!(
                "7bdb6e3b432667eb06f4d14bff2fbd0fcb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829"
                "ea64ad544a272e9c485b62a3fd5c0d"
            )
        );
    }
}
