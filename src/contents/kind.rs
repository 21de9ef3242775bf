//! The kinds of things that blocks hold.

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident $id:literal $words:literal)*) => {
        /// What a block holds.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Kind {
            $($(#[$doc])* $variant,)*
        }

        impl Kind {
            /// Every kind.
            pub const ALL: &[Kind] = &[$(Kind::$variant,)*];

            /// The kebab-case word in JSON and on the command line.
            pub fn id(self) -> &'static str {
                match self { $(Kind::$variant => $id,)* }
            }

            /// For people: "PNG picture".
            pub fn words(self) -> &'static str {
                match self { $(Kind::$variant => $words,)* }
            }
        }
    };
}

kinds! {
    /// A certificate trust list, bare or signed.
    Ctl "ctl" "certificate trust list"
    /// An X.509 certificate.
    Certificate "x509-certificate" "X.509 certificate"
    /// A certificate revocation list.
    Crl "x509-crl" "certificate revocation list"
    /// Another PKCS #7 message.
    Pkcs7 "pkcs7" "PKCS #7 message"
    /// Another structure in the distinguished encoding rules of ASN.1.
    Der "der" "DER structure"
    /// A cabinet.
    Cab "cab" "cabinet file"
    /// A program or DLL as it is on disk.
    Pe "pe" "PE image"
    /// A picture.
    Png "png" "PNG picture"
    /// A picture.
    Jpeg "jpeg" "JPEG picture"
    /// A picture.
    Gif "gif" "GIF picture"
    /// A picture in a file.
    Bmp "bmp" "BMP picture"
    /// An archive: also .docx, .jar, .nupkg.
    Zip "zip" "ZIP archive"
    /// Packed bytes.
    Gzip "gzip" "gzip stream"
    /// An object or array.
    Json "json" "JSON"
    /// A document.
    Xml "xml" "XML"
    /// A page.
    Html "html" "HTML"
    /// A string with its length in front: `SysAllocString`.
    Bstr "bstr" "BSTR"
    /// Two bytes a letter.
    Utf16 "utf16-text" "UTF-16 text"
    /// ASCII or UTF-8.
    Utf8 "utf8-text" "UTF-8 text"
    /// A C++ object: begins with a pointer to a table of virtual functions.
    Object "object" "C++ object"
    /// Mostly pointers into images.
    Pointers "pointers" "pointers"
    /// Nothing but zeros.
    Zero "zero" "all zero"
    /// One word again and again.
    Repeated "repeated-word" "one word repeated"
    /// None of these.
    Unknown "unknown" "not recognized"
}

impl Kind {
    /// Whether nobody put anything in yet, or wiped it: many equal copies of it are no news.
    pub fn is_blank(self) -> bool {
        matches!(self, Kind::Zero | Kind::Repeated)
    }

    /// Whether it is text that a reader wants to see some of.
    pub fn is_text(self) -> bool {
        matches!(self, Kind::Bstr | Kind::Utf16 | Kind::Utf8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_kebab_case() {
        let mut ids: Vec<_> = Kind::ALL.iter().map(|it| it.id()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), Kind::ALL.len());
        let kebab = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '-';
        assert!(ids.iter().all(|id| id.chars().all(kebab)));
    }
}
