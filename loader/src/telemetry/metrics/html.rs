//! HTML that no content can break: only text from the program itself is markup.

use std::fmt::{self, Display, Write};

/// A page that grows.
#[derive(Default)]
pub(super) struct Html(String);

impl Html {
    /// Adds markup, which is part of the program.
    pub(super) fn markup(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds text, also inside a quoted attribute. Whatever it holds, it stays text.
    pub(super) fn text(&mut self, text: impl Display) -> &mut Self {
        // Writing to a String doesn't fail.
        _ = write!(Escaping(&mut self.0), "{text}");
        self
    }

    /// Returns the page so far.
    pub(super) fn into_string(self) -> String {
        self.0
    }
}

struct Escaping<'s>(&'s mut String);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            match character {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                // HTML has no other control characters.
                c if c.is_control() && c != '\n' => self.0.push('\u{fffd}'),
                c => self.0.push(c),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_never_becomes_markup() {
        let mut html = Html::default();
        html.markup("<p title=\"").text("a\" onload='x' <b>&\u{0}\n").markup("\">").text(3).markup("</p>");
        assert_eq!(
            html.into_string(),
            "<p title=\"a&quot; onload=&#39;x&#39; &lt;b&gt;&amp;\u{fffd}\n\">3</p>"
        );
    }
}
