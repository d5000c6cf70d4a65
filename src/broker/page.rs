//! Pages of lists that may be long. The store is asked for one more than a page has: so one question tells
//! whether there are more.

/// Cuts what was found to a page of at most `most`; returns whether there are more.
pub(super) fn cut<T>(found: &mut Vec<T>, most: impl TryInto<usize>) -> bool {
    let most = most.try_into().unwrap_or(usize::MAX);
    let more = found.len() > most;
    found.truncate(most);
    more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_more_than_fits_tells_that_there_are_more() {
        for (found, more) in [(0, false), (2, false), (3, true)] {
            let mut list = vec!['x'; found];
            assert_eq!(cut(&mut list, 2_i64), more);
            assert_eq!(list.len(), found.min(2));
        }
    }
}
