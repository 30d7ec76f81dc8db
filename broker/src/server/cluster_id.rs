//! Ids as Kafka writes them: 22 characters of URL-safe base 64.

use uuid::Uuid;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Characters of an id: 128 bits in sixes, rounded up.
const CHARS: u32 = 22;

/// Bits that the last character has beyond the id's.
const SPARE_BITS: u32 = CHARS * 6 - 128;

/// The id as text.
pub fn to_text(id: Uuid) -> String {
    let bits = id.as_u128();
    let digit = |position: u32| {
        let shift = (CHARS - 1 - position) * 6;
        let digit = if shift >= SPARE_BITS {
            bits >> (shift - SPARE_BITS)
        } else {
            bits << (SPARE_BITS - shift)
        };
        char::from(ALPHABET[(digit & 63) as usize])
    };
    (0..CHARS).map(digit).collect()
}

/// The id that the text stands for; `None` if it is not one.
pub fn from_text(text: &str) -> Option<Uuid> {
    if text.len() != CHARS as usize {
        return None;
    }
    let digits = text
        .bytes()
        .map(|byte| ALPHABET.iter().position(|letter| *letter == byte));
    let mut bits: u128 = 0;
    for (digit, position) in digits.zip(0..CHARS) {
        let digit = digit? as u128;
        if position + 1 == CHARS {
            if digit & ((1 << SPARE_BITS) - 1) != 0 {
                return None;
            }
            bits = bits << (6 - SPARE_BITS) | digit >> SPARE_BITS;
        } else {
            bits = bits << 6 | digit;
        }
    }
    Some(Uuid::from_u128(bits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_ids() {
        assert_eq!(to_text(Uuid::nil()), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(to_text(Uuid::from_u128(1)), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(to_text(Uuid::max()), "_____________________w");
        for bad in [
            "",
            "AAAAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAAB",
            "AAAAAAAAAAAAAAAAAAAA+A",
        ] {
            assert_eq!(from_text(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn text_and_back(bits: u128) {
            let id = Uuid::from_u128(bits);
            prop_assert_eq!(from_text(&to_text(id)), Some(id));
        }
    }
}
