//! A CMAC that caches its results for inputs that are the same for every value.
//!
//! S2V, the first half of SIV (RFC 5297, section 2.4), begins with the MACs of a zero block and of the associated data. Both
//! are constants of a key, and take twice as long as the one MAC of the value itself.

use aes::Aes256Enc;
use arrayvec::ArrayVec;
use cmac::Cmac;
use cmac::digest::common::{Key, KeyInit, KeySizeUser, Output, OutputSizeUser, Reset};
use cmac::digest::{FixedOutput, FixedOutputReset, MacMarker, Update};
use zeroize::Zeroize;

const ZERO: [u8; 16] = [0; 16];
/// Maximum length of the cached associated data, in bytes.
const MOST: usize = 64;

/// AES-256-CMAC (RFC 4493), with cached MACs of a zero block and of the last input that directly followed one.
pub(crate) struct CachedCmac {
    mac: Cmac<Aes256Enc>,
    zero: Output<Cmac<Aes256Enc>>,
    header: ArrayVec<u8, MOST>,
    header_mac: Output<Cmac<Aes256Enc>>,
    input: Input,
    after_zero: bool,
}

/// The input of the next MAC.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Input {
    Nothing,
    /// A zero block that was not passed to `mac` yet.
    Zero,
    /// The contents of `header`, which were not passed to `mac` yet.
    Header,
    /// An input that was just stored in `header`, and was passed to `mac` too.
    NewHeader,
    /// The input that was passed to `mac`.
    Other,
}

impl Update for CachedCmac {
    fn update(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        match self.input {
            Input::Nothing if data == ZERO => {
                self.input = Input::Zero;
                return;
            }
            Input::Nothing if self.after_zero && data == &*self.header => {
                self.input = Input::Header;
                return;
            }
            Input::Nothing if self.after_zero && data.len() <= MOST => {
                self.header = data.iter().copied().collect();
                self.input = Input::NewHeader;
            }
            Input::Zero => {
                Update::update(&mut self.mac, &ZERO);
                self.input = Input::Other;
            }
            Input::Header => {
                Update::update(&mut self.mac, &self.header);
                self.input = Input::Other;
            }
            Input::NewHeader => {
                self.header.clear();
                self.input = Input::Other;
            }
            Input::Nothing | Input::Other => self.input = Input::Other,
        }
        Update::update(&mut self.mac, data);
    }
}

impl FixedOutputReset for CachedCmac {
    fn finalize_into_reset(&mut self, out: &mut Output<Self>) {
        match self.input {
            Input::Zero => *out = self.zero,
            Input::Header => *out = self.header_mac,
            Input::NewHeader => {
                FixedOutputReset::finalize_into_reset(&mut self.mac, out);
                self.header_mac = *out;
            }
            Input::Nothing | Input::Other => FixedOutputReset::finalize_into_reset(&mut self.mac, out),
        }
        self.after_zero = self.input == Input::Zero;
        self.input = Input::Nothing;
    }
}

impl FixedOutput for CachedCmac {
    fn finalize_into(mut self, out: &mut Output<Self>) {
        self.finalize_into_reset(out);
    }
}

impl Reset for CachedCmac {
    fn reset(&mut self) {
        if self.input == Input::NewHeader {
            self.header.clear();
        }
        self.input = Input::Nothing;
        self.after_zero = false;
        Reset::reset(&mut self.mac);
    }
}

impl MacMarker for CachedCmac {}

impl OutputSizeUser for CachedCmac {
    type OutputSize = <Cmac<Aes256Enc> as OutputSizeUser>::OutputSize;
}

impl KeySizeUser for CachedCmac {
    type KeySize = <Cmac<Aes256Enc> as KeySizeUser>::KeySize;
}

impl KeyInit for CachedCmac {
    fn new(key: &Key<Self>) -> Self {
        let mut mac = <Cmac<Aes256Enc> as KeyInit>::new(key);
        Update::update(&mut mac, &ZERO);
        let mut zero = Output::<Self>::default();
        FixedOutputReset::finalize_into_reset(&mut mac, &mut zero);
        Self {
            mac,
            zero,
            header: ArrayVec::new(),
            header_mac: Output::<Self>::default(),
            input: Input::Nothing,
            after_zero: false,
        }
    }
}

impl Drop for CachedCmac {
    fn drop(&mut self) {
        self.zero.zeroize();
        self.header_mac.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aes_siv::siv::{Aes256Siv, Siv};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cached_mac_equals_a_fresh_one(
            values in prop::collection::vec(
                (prop::collection::vec(prop::collection::vec(0_u8..3, 0..70), 0..3), prop::collection::vec(0_u8..2, 0..40)),
                1..20,
            )
        ) {
            let mut remembering = Siv::<Aes256Enc, CachedCmac>::new(&[9; 64].into());
            for (headers, value) in values {
                // Now and then, the zero block that S2V itself begins with is used as a header or a value.
                let mut plain = value.clone();
                let expected = Aes256Siv::new(&[9; 64].into()).encrypt_inout_detached(&headers, plain.as_mut_slice().into());
                let mut sealed = value.clone();
                let tag = remembering.encrypt_inout_detached(&headers, sealed.as_mut_slice().into());
                prop_assert_eq!((tag, &sealed), (expected, &plain));
                let tag = tag.expect("few headers");
                prop_assert!(remembering.decrypt_inout_detached(&headers, sealed.as_mut_slice().into(), &tag).is_ok());
                prop_assert_eq!(sealed, value);
            }
        }
    }
}
