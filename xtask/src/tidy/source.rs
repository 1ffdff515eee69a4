//! Rust source as the rules look at it: without the text of comments and strings, and with the lines
//! that only tests compile marked.
//!
//! This is no parser. It knows how comments, strings and attributes are written, and matches
//! brackets; rustfmt keeps what it reads in one shape.

/// A Rust file, prepared once for all rules.
pub struct Source {
    /// The file with comments, and the insides of strings and character literals, blanked out. Lines
    /// are where they were.
    pub code: String,
    /// For each line, whether only tests compile it.
    test: Vec<bool>,
    /// Modules in files of their own that only tests compile: `#[cfg(test)] mod name;`.
    pub test_modules: Vec<String>,
}

impl Source {
    /// Prepares a file. One that is `all_test` has no other lines.
    pub fn new(text: &str, all_test: bool) -> Self {
        let code = blank(text);
        let mut source = Self {
            test: vec![all_test || code.contains("#![cfg(test)]"); code.lines().count()],
            code,
            test_modules: Vec::new(),
        };
        source.mark_test_items();
        source
    }

    /// Makes every line a test's: its parent declares the file under `#[cfg(test)]`.
    pub fn mark_all_test(&mut self) {
        self.test.fill(true);
    }

    /// Each line with its number, counted from 1, and whether it is a test's.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str, bool)> {
        self.code.lines().zip(&self.test).enumerate().map(|(i, (line, test))| (i + 1, line, *test))
    }

    /// The lines that are in the product.
    pub fn product_lines(&self) -> usize {
        self.test.iter().filter(|test| !**test).count()
    }

    fn mark_test_items(&mut self) {
        const ATTRIBUTES: [&str; 4] =
            ["#[cfg(test)]", "#[cfg(all(test", "#[test]", "#[tokio::test"];
        let code = self.code.clone();
        for attribute in ATTRIBUTES {
            for (start, _) in code.match_indices(attribute) {
                let end = item_end(&code, start);
                let item = &code[start..end];
                if let Some(name) = module_in_own_file(item) {
                    self.test_modules.push(name);
                }
                let first = line_of(&code, start);
                self.test[first..=line_of(&code, end - 1)].fill(true);
            }
        }
    }
}

/// The line, counted from 0, that a byte is on.
fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count()
}

/// Where an item that begins with an attribute ends: at its `;`, or after its last brace.
fn item_end(code: &str, start: usize) -> usize {
    let (mut round, mut braces) = (0_i32, 0_i32);
    for (at, c) in code[start..].char_indices() {
        match c {
            '(' | '[' => round += 1,
            ')' | ']' => round -= 1,
            '{' => braces += 1,
            '}' => braces -= 1,
            _ => {}
        }
        let ends = (c == ';' && round == 0 && braces == 0) || (c == '}' && braces == 0);
        if ends {
            return start + at + 1;
        }
    }
    code.len()
}

/// The name in `mod name;`, which rustfmt puts on a line of its own.
fn module_in_own_file(item: &str) -> Option<String> {
    let line = item.lines().last()?.trim();
    let declaration = line.strip_prefix("pub ").unwrap_or(line);
    Some(declaration.strip_prefix("mod ")?.strip_suffix(';')?.to_owned())
}

/// Blanks comments and the insides of literals, keeping every line break.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = literal_end(&chars, at).unwrap_or(at + 1);
        if end == at + 1 {
            out.push(chars[at]);
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
        }
        at = end;
    }
    out
}

/// Where the comment, string or character literal that begins here ends, if one does.
fn literal_end(chars: &[char], at: usize) -> Option<usize> {
    let next = chars.get(at + 1).copied();
    match chars[at] {
        '/' if next == Some('/') => Some(find(chars, at, |c| c == '\n')),
        '/' if next == Some('*') => Some(block_comment_end(chars, at)),
        '"' => Some(quoted_end(chars, at, '"')),
        'r' if !follows_a_word(chars, at) => raw_string_end(chars, at),
        '\'' if next == Some('\\') => Some(quoted_end(chars, at, '\'')),
        // Any other quote begins a lifetime.
        '\'' if chars.get(at + 2) == Some(&'\'') => Some(at + 3),
        _ => None,
    }
}

fn follows_a_word(chars: &[char], at: usize) -> bool {
    // `b` and `c` may stand before the `r` of a raw string.
    at > 0
        && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_')
        && !"bc".contains(chars[at - 1])
}

fn find(chars: &[char], from: usize, wanted: impl Fn(char) -> bool) -> usize {
    chars[from..].iter().position(|&c| wanted(c)).map_or(chars.len(), |n| from + n)
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => depth += 1,
            ('*', '/') => depth -= 1,
            _ => {
                at += 1;
                continue;
            }
        }
        at += 2;
        if depth == 0 {
            return at;
        }
    }
    chars.len()
}

fn quoted_end(chars: &[char], start: usize, quote: char) -> usize {
    let mut at = start + 1;
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 1,
            c if c == quote => return at + 1,
            _ => {}
        }
        at += 1;
    }
    chars.len()
}

fn raw_string_end(chars: &[char], start: usize) -> Option<usize> {
    let open = find(chars, start + 1, |c| c != '#');
    if chars.get(open) != Some(&'"') {
        return None;
    }
    let hashes = open - start - 1;
    let mut at = open + 1;
    while at < chars.len() {
        let close = find(chars, at, |c| c == '"');
        let end = (close + 1 + hashes).min(chars.len());
        if chars[(close + 1).min(end)..end].iter().all(|&c| c == '#') {
            return Some(end);
        }
        at = close + 1;
    }
    Some(chars.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_blank(text: &str, expected: &str) {
        let squeezed: Vec<&str> = blank(text).leak().split_whitespace().collect();
        assert_eq!(squeezed.join(" "), expected);
    }

    #[test]
    fn comments_and_literals_are_blanked() {
        check_blank("a // panic!\nb", "a b");
        check_blank("a /* x /* y */ z */ b", "a b");
        check_blank(r#"a("x \" y", b)"#, "a( , b)");
        check_blank("a(r#\"x \" y\"#, br\"z\")", "a( , b )");
        check_blank(r"a('x', '\'', b'\n') 'static <'a>", "a( , , b ) 'static <'a>");
        check_blank("var\"x\"", "var");
        check_blank("\"one\ntwo\" b", "b");
        assert_eq!(blank("\"one\ntwo\"\nb").lines().count(), 3);
    }

    #[track_caller]
    fn check_test_lines(text: &str, expected: &[usize]) {
        let source = Source::new(text, false);
        let found: Vec<usize> =
            source.lines().filter(|(_, _, test)| *test).map(|(n, _, _)| n).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn lines_of_tests_are_marked() {
        check_test_lines(
            "fn a() {}\n#[cfg(test)]\nmod tests {\n fn b() { {} }\n}\nfn c() {}",
            &[2, 3, 4, 5],
        );
        check_test_lines("#[cfg(test)]\nuse a::{b, c};\nfn d() {}", &[1, 2]);
        check_test_lines("#[cfg(test)]\n#[path = \"x\"]\nmod a;\nfn d() {}", &[1, 2, 3]);
        check_test_lines("#[test]\nfn a(x: [u8; 3]) {\n}\nfn d() {}", &[1, 2, 3]);
        check_test_lines("#[cfg(not(test))]\nfn a() {}", &[]);
        check_test_lines("// #[cfg(test)]\nfn a() {}", &[]);
        check_test_lines("#![cfg(test)]\nfn a() {}", &[1, 2]);
    }

    #[test]
    fn test_modules_in_their_own_files_are_named() {
        let named = |text| Source::new(text, false).test_modules;
        assert_eq!(named("#[cfg(test)]\nmod oracle;\n"), ["oracle"]);
        assert_eq!(named("#[cfg(test)]\npub mod oracle;\n"), ["oracle"]);
        assert!(named("#[cfg(test)]\nmod tests {}\nmod bar;").is_empty());
    }
}
