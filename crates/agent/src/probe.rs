//! What must be there after a restore, as a user says it.

/// Keys with this prefix, of which there must be so many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The prefix.
    pub prefix: String,
    /// At least so many keys.
    pub least: i64,
}

impl Probe {
    /// Reads `PREFIX` or `PREFIX=COUNT`; a prefix with `=` in it needs the count.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (prefix, least) = match text.rsplit_once('=') {
            None => (text, Some(1)),
            Some((prefix, least)) => (prefix, least.parse().ok().filter(|least| *least > 0)),
        };
        match least {
            Some(least) if !prefix.is_empty() => Ok(Self { prefix: prefix.to_owned(), least }),
            _ => Err(format!(
                "\"{text}\" is neither PREFIX nor PREFIX=COUNT, such as /registry/pods/=3"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_as_they_are_written() {
        let probe = |prefix: &str, least| Ok(Probe { prefix: prefix.to_owned(), least });
        assert_eq!(Probe::parse("/registry/"), probe("/registry/", 1));
        assert_eq!(Probe::parse("/registry/pods/=30"), probe("/registry/pods/", 30));
        assert_eq!(Probe::parse("a=b=2"), probe("a=b", 2));
        for bad in ["", "=3", "a=b", "a=0", "a=-1", "a="] {
            Probe::parse(bad).unwrap_err();
        }
    }
}
