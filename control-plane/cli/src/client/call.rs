//! The path and query of a call.

use reqwest::Url;

use crate::failure::Failure;

/// A path below the controller's address, with its query.
#[derive(Clone, Debug, Default)]
pub(crate) struct Call {
    segments: Vec<String>,
    query: Vec<(String, String)>,
}

impl Call {
    /// Each part is one segment of the path, whatever characters it has.
    pub(crate) fn to(segments: &[&str]) -> Self {
        Self { segments: segments.iter().map(|s| (*s).to_owned()).collect(), query: Vec::new() }
    }

    /// Adds a segment.
    pub(crate) fn then(mut self, segment: &str) -> Self {
        self.segments.push(segment.to_owned());
        self
    }

    /// Adds a query parameter.
    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.query.push((key.to_owned(), value.to_string()));
        self
    }

    /// Adds a query parameter for each value.
    pub(crate) fn with_each(mut self, key: &str, values: &[String]) -> Self {
        self.query.extend(values.iter().map(|v| (key.to_owned(), v.clone())));
        self
    }

    /// Adds a query parameter if there is a value.
    pub(crate) fn with_some(self, key: &str, value: Option<impl ToString>) -> Self {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    pub(super) fn url(&self, base: &Url) -> Result<Url, Failure> {
        // Dots would change the path, and an empty segment would name the list that the thing is in.
        if let Some(odd) = self.segments.iter().find(|s| matches!(s.as_str(), "" | "." | "..")) {
            return Err(Failure::Usage(format!("'{odd}' is neither a name nor an id")));
        }
        let mut url = base.clone();
        match url.path_segments_mut() {
            Ok(mut path) => {
                path.pop_if_empty().extend(&self.segments);
            }
            Err(()) => return Err(Failure::Usage(format!("'{base}' cannot have paths"))),
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_a_path_is_one_segment() {
        let base = Url::parse("https://muster.example:7400/under/").expect("an address");
        let call = Call::to(&["v1", "images", "a/b c?"]).with("label", "k=v&x").with("limit", 3);
        let url = call.url(&base).expect("a path").to_string();
        assert_eq!(url, "https://muster.example:7400/under/v1/images/a%2Fb%20c%3F?label=k%3Dv%26x&limit=3");
    }

    #[test]
    fn dots_and_empty_segments_are_refused() {
        let base = Url::parse("https://muster.example").expect("an address");
        for odd in ["", ".", ".."] {
            assert!(Call::to(&["v1", "images", odd]).url(&base).is_err(), "'{odd}'");
        }
    }
}
