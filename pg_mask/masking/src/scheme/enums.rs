//! The enums that are made from the list of the schemes.

/// Makes the enums of the schemes from their list. Each dispatch is a `match`, which compiles to nothing for one variant.
macro_rules! schemes {
    (
        encodings { $($e_name:literal => $e_module:ident::$encoding:ident,)+ }
        ciphers { $($c_name:literal => $c_module:ident::$cipher:ident,)+ }
    ) => {
        /// A way to mask a text. A stronger scheme is greater.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Scheme {
            $(#[doc = concat!("`", $e_name, "`: an encoding, which anyone can reverse.")]
            #[serde(rename = $e_name)]
            $encoding,)+
            $(#[doc = concat!("`", $c_name, "`: encryption under a ring's primary key.")]
            #[serde(rename = $c_name)]
            $cipher,)+
        }

        impl Scheme {
            /// All schemes, weakest first.
            pub const ALL: &'static [Self] = &[$(Self::$encoding,)+ $(Self::$cipher,)+];

            /// Returns the name in settings, in rules and in SQL.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$encoding => $e_name,)+
                    $(Self::$cipher => $c_name,)+
                }
            }

            /// Returns [`Self::name`] as a C string.
            #[must_use]
            pub const fn c_name(self) -> &'static CStr {
                let name = match self {
                    $(Self::$encoding => concat!($e_name, "\0"),)+
                    $(Self::$cipher => concat!($c_name, "\0"),)+
                };
                match CStr::from_bytes_with_nul(name.as_bytes()) {
                    Ok(name) => name,
                    Err(_) => panic!("a scheme's name has a NUL"),
                }
            }

            /// Returns the beginning of each mask.
            pub(crate) const fn prefix(self) -> &'static str {
                match self {
                    $(Self::$encoding => <$e_module::$encoding as Encoding>::PREFIX,)+
                    $(Self::$cipher => <$c_module::$cipher as Cipher>::PREFIX,)+
                }
            }

            pub(crate) const fn kind(self) -> Kind {
                match self {
                    $(Self::$encoding => Kind::Encoding(AnyEncoding::$encoding),)+
                    $(Self::$cipher => Kind::Cipher {
                        key_bytes: <$c_module::$cipher as Cipher>::KEY_BYTES,
                        tag_bytes: <$c_module::$cipher as Cipher>::TAG_BYTES,
                    },)+
                }
            }

            /// Returns the only scheme that can have made `mask`, by its prefix.
            #[inline]
            pub(crate) fn of_mask(mask: &[u8]) -> Option<Self> {
                $(if mask.starts_with(<$c_module::$cipher as Cipher>::PREFIX.as_bytes()) {
                    return Some(Self::$cipher);
                })+
                $(if !<$e_module::$encoding as Encoding>::PREFIX.is_empty()
                    && mask.starts_with(<$e_module::$encoding as Encoding>::PREFIX.as_bytes()) {
                    return Some(Self::$encoding);
                })+
                $(if <$e_module::$encoding as Encoding>::PREFIX.is_empty() {
                    return Some(Self::$encoding);
                })+
                None
            }
        }

        /// An encoding of the list.
        #[derive(Clone, Copy)]
        pub(crate) enum AnyEncoding {
            $($encoding,)+
        }

        impl AnyEncoding {
            fn form(self) -> &'static str {
                match self {
                    $(Self::$encoding => <$e_module::$encoding as Encoding>::FORM,)+
                }
            }

            #[inline]
            pub(crate) fn masked_len(self, value: &[u8]) -> usize {
                match self {
                    $(Self::$encoding => <$e_module::$encoding as Encoding>::masked_len(value),)+
                }
            }

            #[inline]
            pub(crate) fn mask(self, value: &[u8], out: &mut [u8]) -> usize {
                match self {
                    $(Self::$encoding => <$e_module::$encoding as Encoding>::mask(value, out),)+
                }
            }

            #[inline]
            pub(crate) fn unmasked_len(self, mask: &[u8]) -> usize {
                match self {
                    $(Self::$encoding => <$e_module::$encoding as Encoding>::unmasked_len(mask),)+
                }
            }

            #[inline]
            pub(crate) fn unmask(self, mask: &[u8], out: &mut [u8]) -> Result<usize, Unreadable> {
                match self {
                    $(Self::$encoding => <$e_module::$encoding as Encoding>::unmask(mask, out),)+
                }
            }
        }

        /// A cipher of the list with its key.
        #[allow(clippy::large_enum_variant, reason = "secrets must not be on the heap, which the ring's owner does not choose")]
        pub(crate) enum AnyCipher {
            $($cipher($c_module::$cipher),)+
        }

        impl AnyCipher {
            /// Returns the cipher whose keys have the length of `key`, if there is one.
            pub(crate) fn new(id: &str, key: &[u8]) -> Option<Self> {
                match key.len() {
                    $(<$c_module::$cipher as Cipher>::KEY_BYTES => Some(Self::$cipher(<$c_module::$cipher as Cipher>::new(id, key))),)+
                    _ => None,
                }
            }

            #[inline]
            pub(crate) fn scheme(&self) -> Scheme {
                match self {
                    $(Self::$cipher(_) => Scheme::$cipher,)+
                }
            }

            #[inline]
            pub(crate) fn tag_bytes(&self) -> usize {
                match self {
                    $(Self::$cipher(_) => <$c_module::$cipher as Cipher>::TAG_BYTES,)+
                }
            }

            #[inline]
            pub(crate) fn seal(&self, sealed: &mut [u8]) {
                match self {
                    $(Self::$cipher(cipher) => cipher.seal(sealed),)+
                }
            }

            #[inline]
            pub(crate) fn open(&self, sealed: &mut [u8]) -> Result<(), Unreadable> {
                match self {
                    $(Self::$cipher(cipher) => cipher.open(sealed),)+
                }
            }
        }
    };
}
pub(super) use schemes;
