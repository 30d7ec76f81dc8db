//! Variable-length integers as Kafka writes them: base 128, least significant group first, signed ones zigzag.
//!
//! Reading takes the bytes off the front of a slice and yields `None` when the slice ends first or when the
//! number is longer than its type allows, as Kafka's `ByteUtils` does.

use bytes::BufMut;

/// Longest encoding of 32 bits.
pub const VARINT_BYTES_MAX: usize = 5;
/// Longest encoding of 64 bits.
pub const VARLONG_BYTES_MAX: usize = 10;

/// Reads an unsigned 32-bit number.
#[inline]
pub fn read_unsigned(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for group in 0..VARINT_BYTES_MAX {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f) << (group * 7);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

/// Reads a signed 32-bit number.
#[inline]
pub fn read_varint(bytes: &mut &[u8]) -> Option<i32> {
    let raw = read_unsigned(bytes)?;
    Some((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
}

/// Reads a signed 64-bit number.
#[inline]
pub fn read_varlong(bytes: &mut &[u8]) -> Option<i64> {
    let mut raw = 0u64;
    for group in 0..VARLONG_BYTES_MAX {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        raw |= u64::from(byte & 0x7f) << (group * 7);
        if byte < 0x80 {
            return Some((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()));
        }
    }
    None
}

/// Writes an unsigned 32-bit number.
pub fn write_unsigned(out: &mut impl BufMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes a signed 32-bit number.
pub fn write_varint(out: &mut impl BufMut, value: i32) {
    write_unsigned(out, ((value << 1) ^ (value >> 31)).cast_unsigned());
}

/// Writes a signed 64-bit number.
pub fn write_varlong(out: &mut impl BufMut, value: i64) {
    let mut raw = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while raw >= 0x80 {
        out.put_u8((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    out.put_u8(raw as u8);
}

/// Length of a signed 32-bit number.
pub fn varint_len(value: i32) -> usize {
    groups(u64::from(((value << 1) ^ (value >> 31)).cast_unsigned()))
}

/// Length of a signed 64-bit number.
pub fn varlong_len(value: i64) -> usize {
    groups(((value << 1) ^ (value >> 63)).cast_unsigned())
}

fn groups(raw: u64) -> usize {
    let bits = 64 - (raw | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_encodings() {
        for (value, bytes) in [
            (0, &[0u8][..]),
            (-1, &[1]),
            (1, &[2]),
            (300, &[216, 4]),
            (i32::MAX, &[254, 255, 255, 255, 15]),
            (i32::MIN, &[255, 255, 255, 255, 15]),
        ] {
            let mut out = Vec::new();
            write_varint(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(read_varint(&mut &*out), Some(value));
        }
    }

    #[test]
    fn too_long_or_cut_is_refused() {
        assert_eq!(
            read_varint(&mut &[0x80u8, 0x80, 0x80, 0x80, 0x80, 0][..]),
            None
        );
        assert_eq!(read_varint(&mut &[0x80u8][..]), None);
        assert_eq!(read_varlong(&mut &[0xffu8; 11][..]), None);
        assert_eq!(read_unsigned(&mut &[][..]), None);
    }

    proptest! {
        #[test]
        fn round_trip(a: i32, b: i64, c: u32) {
            let mut out = Vec::new();
            write_varint(&mut out, a);
            prop_assert_eq!(out.len(), varint_len(a));
            write_varlong(&mut out, b);
            prop_assert_eq!(out.len(), varint_len(a) + varlong_len(b));
            write_unsigned(&mut out, c);
            let mut rest = &*out;
            prop_assert_eq!(read_varint(&mut rest), Some(a));
            prop_assert_eq!(read_varlong(&mut rest), Some(b));
            prop_assert_eq!(read_unsigned(&mut rest), Some(c));
            prop_assert!(rest.is_empty());
        }
    }
}
