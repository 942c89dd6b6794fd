//! Records that came together, in portions that one append each has room for: pure.

/// `all` in their order, in as few portions as have at most `most` bytes each by `stored_len`; one that is larger than that by
/// itself is a portion of its own, which a log refuses. Empty if there are none.
///
/// ```
/// use mq_core::log::portions::portions;
/// assert_eq!(portions(vec![4, 3, 2, 9, 1], 7, |bytes| *bytes), [vec![4, 3], vec![2], vec![9], vec![1]]);
/// ```
pub fn portions<T>(all: Vec<T>, most: u64, stored_len: impl Fn(&T) -> u64) -> Vec<Vec<T>> {
    if all.is_empty() {
        return Vec::new();
    }
    if all.iter().map(&stored_len).sum::<u64>() <= most {
        return vec![all];
    }
    let (mut portions, mut portion, mut room) = (Vec::new(), Vec::new(), most);
    for one in all {
        let bytes = stored_len(&one);
        if bytes > room && !portion.is_empty() {
            portions.push(std::mem::take(&mut portion));
            room = most;
        }
        room = room.saturating_sub(bytes);
        portion.push(one);
    }
    portions.push(portion);
    portions
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_stays_together_in_its_order() {
        let of = |all: &[u64], most| portions(all.to_vec(), most, |bytes| *bytes);
        assert_eq!(of(&[], 7), [[0; 0]; 0]);
        assert_eq!(of(&[3, 4], 7), [[3, 4]]);
        assert_eq!(of(&[3, 5], 7), [[3], [5]]);
        assert_eq!(of(&[8], 7), [[8]]);
        assert_eq!(of(&[8, 1, 6, 1], 7), [vec![8], vec![1, 6], vec![1]]);
        assert_eq!(of(&[1, 1, 1], u64::MAX), [[1, 1, 1]]);
    }
}
