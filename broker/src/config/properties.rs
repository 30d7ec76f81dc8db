//! Java's properties file format, as `server.properties` is written in.
//!
//! Owns the syntax only: comments, the three separators, continued lines and escapes. Text is UTF-8. Knows no property.

/// One `name=value` of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Number of the line where it starts, from 1.
    pub line: usize,
    /// Name, unescaped.
    pub name: String,
    /// Value, unescaped, without white space at its end.
    pub value: String,
}

/// A line that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

/// Parses a whole file.
pub fn parse(text: &str) -> Result<Vec<Entry>, SyntaxError> {
    let mut entries = Vec::new();
    let mut lines = text
        .strip_prefix('\u{feff}')
        .unwrap_or(text)
        .lines()
        .enumerate();
    while let Some((index, first)) = lines.next() {
        let line = index + 1;
        let start = first.trim_start_matches(is_blank);
        if start.is_empty() || start.starts_with(['#', '!']) {
            continue;
        }
        let mut logical = start.to_owned();
        while ends_in_continuation(&logical) {
            logical.pop();
            match lines.next() {
                Some((_, next)) => logical.push_str(next.trim_start_matches(is_blank)),
                None => break,
            }
        }
        let (name, value) = split(&logical);
        let name = unescape(name).map_err(|reason| SyntaxError { line, reason })?;
        let value = unescape(value).map_err(|reason| SyntaxError { line, reason })?;
        entries.push(Entry {
            line,
            name,
            value: value.trim_end().to_owned(),
        });
    }
    Ok(entries)
}

/// Writes a value so that [`parse`] reads it back.
pub fn escape_value(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for (i, c) in value.chars().enumerate() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{c}' => out.push_str("\\f"),
            ' ' if i == 0 => out.push_str("\\ "),
            c => out.push(c),
        }
    }
    out
}

fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\u{c}')
}

fn ends_in_continuation(line: &str) -> bool {
    line.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1
}

/// Splits at the first unescaped `=`, `:` or blank; blanks around one separator belong to it.
fn split(line: &str) -> (&str, &str) {
    let mut escaped = false;
    for (at, c) in line.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == '=' || c == ':' || is_blank(c) {
            let (name, rest) = line.split_at(at);
            let rest = rest.trim_start_matches(is_blank);
            let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest);
            return (name, rest.trim_start_matches(is_blank));
        }
    }
    (line, "")
}

fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('t') => out.push('\t'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('f') => out.push('\u{c}'),
            Some('u') => {
                let digits: String = chars.by_ref().take(4).collect();
                let code = u32::from_str_radix(&digits, 16)
                    .ok()
                    .filter(|_| digits.len() == 4);
                let code = code.and_then(char::from_u32);
                out.push(code.ok_or_else(|| format!("'\\u{digits}' is not a character"))?);
            }
            Some(other) => out.push(other),
            None => {}
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(usize, String, String)> {
        parse(text)
            .expect("well formed")
            .into_iter()
            .map(|e| (e.line, e.name, e.value))
            .collect()
    }

    fn one(text: &str) -> (String, String) {
        let (_, name, value) = pairs(text).pop().expect("one entry");
        (name, value)
    }

    #[test]
    fn separators_blanks_and_comments() {
        let table = [
            ("a=b", "a", "b"),
            ("a:b", "a", "b"),
            ("a b", "a", "b"),
            ("  a = b  ", "a", "b"),
            ("a =b=c", "a", "b=c"),
            ("a", "a", ""),
            ("a=", "a", ""),
            ("a\\=b=c", "a=b", "c"),
            ("a=PLAINTEXT://:9092", "a", "PLAINTEXT://:9092"),
            ("a=x # not a comment", "a", "x # not a comment"),
            ("a=C:\\\\data", "a", "C:\\data"),
            ("a=\\u0041\\tb", "a", "A\tb"),
            ("a=one,\\\n   two", "a", "one,two"),
            ("a=even\\\\\nb=c", "b", "c"),
        ];
        for (text, name, value) in table {
            assert_eq!(one(text), (name.to_owned(), value.to_owned()), "{text:?}");
        }
        assert_eq!(parse("# x\n! y\n\n   \n"), Ok(vec![]));
    }

    #[test]
    fn line_numbers_survive_comments_and_continuations() {
        let got = pairs("# head\r\na=1\r\nb=2,\\\r\n  3\r\nc=4\r\n");
        let want = [(2, "a", "1"), (3, "b", "2,3"), (5, "c", "4")];
        assert_eq!(got, want.map(|(n, k, v)| (n, k.to_owned(), v.to_owned())));
    }

    #[test]
    fn bad_unicode_escape_names_its_line() {
        assert_eq!(parse("a=1\nb=\\u00").unwrap_err().line, 2);
        assert!(parse("b=\\uzzzz").is_err());
        assert!(parse("b=\\ud800").is_err());
    }

    proptest::proptest! {
        #[test]
        fn escaped_values_come_back(value in "[ -~\t\n]{0,40}[!-~]") {
            let (_, got) = one(&format!("k={}", escape_value(&value)));
            proptest::prop_assert_eq!(got, value);
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
