//! Finding zeros, which are never stored. It must cost almost nothing beside reading the bytes.

const STRIDE: usize = 128;

/// Whether every byte is zero.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (strides, rest) = bytes.as_chunks::<STRIDE>();
    strides.iter().all(stride_is_zero) && rest.iter().all(|b| *b == 0)
}

/// The bytes without the zeros at their end.
pub fn trim_zeros(bytes: &[u8]) -> &[u8] {
    let (rest, strides) = bytes.as_rchunks::<STRIDE>();
    let used = strides.iter().rposition(|s| !stride_is_zero(s)).map_or(0, |last| (last + 1) * STRIDE);
    let (head, _zeros) = bytes.split_at(rest.len() + used);
    let end = head.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
    head.split_at(end).0
}

/// The compiler turns this OR over 16 words into vector instructions; it does not do that to a loop that stops early.
fn stride_is_zero(stride: &[u8; STRIDE]) -> bool {
    stride.as_chunks::<8>().0.iter().fold(0, |all, word| all | u64::from_ne_bytes(*word)) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_one_byte_that_is_not_zero_wherever_it_is() {
        for len in [0, 1, 7, 127, 128, 129, 255, 256, 400] {
            let mut bytes = vec![0; len];
            assert!(is_zero(&bytes));
            assert_eq!(trim_zeros(&bytes), b"");
            for at in 0..len {
                *bytes.get_mut(at).expect("inside") = 1;
                assert!(!is_zero(&bytes), "{len} {at}");
                assert_eq!(trim_zeros(&bytes).len(), at + 1, "{len} {at}");
                *bytes.get_mut(at).expect("inside") = 0;
            }
        }
    }
}
