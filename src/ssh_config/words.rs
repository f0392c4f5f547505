//! The ways in which programs split a ProxyCommand into words. A command is only written when all of them get the same
//! words.
//!
//! On Windows the programs are Microsoft's OpenSSH, which gives it to CreateProcess; Git's OpenSSH, which gives it to
//! its own `sh`; and open-remote-ssh on every system, which has a tokenizer of its own. On Unix it is the user's shell,
//! of any kind: words that are plain to the reader here are plain to all of them.

use crate::{
    error::{Error, Kind, Result},
    os,
};

/// The words of a command.
///
/// # Errors
/// [`Kind::Usage`] when the readers would not agree on them.
pub fn agreed(command: &str) -> Result<Vec<String>> {
    let words = create_process(command);
    if shell(command).as_ref() == Some(&words) && open_remote_ssh(command) == words {
        return Ok(words);
    }
    Err(Error::new(Kind::Usage, format!("not every program would read the command `{command}` in the same way"))
        .with_hint(format!(
            "install labctl-ssh-proxy below a path of plain letters, for example {}, and run that one",
            os::PROGRAMS
        )))
}

/// The words of CreateProcess, with the rules by which a C program finds its arguments: the program's name ends at a
/// space, or at the quote that it began with, and has no escapes. In arguments a backslash escapes only before quotes,
/// and a quote doubled inside quotes is one.
pub fn create_process(command: &str) -> Vec<String> {
    let command = command.trim_start_matches(is_space);
    let (program, rest) = match command.strip_prefix('"') {
        Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
        None => command.split_at(command.find(is_space).unwrap_or(command.len())),
    };
    if command.is_empty() {
        return Vec::new();
    }
    let mut words = vec![program.to_owned()];
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = rest.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                let mut count = 1;
                while chars.next_if_eq(&'\\').is_some() {
                    count += 1;
                }
                let word = word.get_or_insert_default();
                if chars.peek() == Some(&'"') {
                    word.extend(std::iter::repeat_n('\\', count / 2));
                    if count % 2 == 1 {
                        chars.next();
                        word.push('"');
                    }
                } else {
                    word.extend(std::iter::repeat_n('\\', count));
                }
            }
            '"' if quoted && chars.next_if_eq(&'"').is_some() => word.get_or_insert_default().push('"'),
            '"' => {
                word.get_or_insert_default();
                quoted = !quoted;
            }
            c if is_space(c) && !quoted => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// The words of `sh` (POSIX, 2.2 and 2.3). `None` for more than words and quotes: an expansion, a pattern, an operator,
/// a comment, a quote without an end.
pub fn shell(command: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '\'' => break,
                        c => word.push(c),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next()? {
                        '"' => break,
                        '$' | '`' => return None,
                        '\\' => match chars.next()? {
                            c @ ('$' | '`' | '"' | '\\') => word.push(c),
                            '\n' => {}
                            c => word.extend(['\\', c]),
                        },
                        c => word.push(c),
                    }
                }
            }
            '\\' => match chars.next()? {
                '\n' => {}
                c => word.get_or_insert_default().push(c),
            },
            '$' | '`' | '*' | '?' | '[' | ']' | '{' | '}' | '!' | ';' | '&' | '|' | '<' | '>' | '(' | ')' | '\n'
            | '\r' => {
                return None;
            }
            // Special only at the start of a word, but no path of ours needs them elsewhere.
            '~' | '#' | '=' | '^' => return None,
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// The words of open-remote-ssh: quotes of both kinds, and a backslash escapes the next character, on every system, in
/// quotes and outside.
pub fn open_remote_ssh(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = command.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => word.get_or_insert_default().extend(chars.next()),
            c if quote == Some(c) => quote = None,
            '"' | '\'' if quote.is_none() => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            c if c.is_whitespace() && quote.is_none() => words.extend(word.take()),
            c => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The tokens of one argument replaced as open-remote-ssh does it: only the first of each, and `%%` stays.
#[cfg(test)]
pub fn open_remote_ssh_expand(argument: &str, host: &str, user: &str) -> String {
    argument.replacen("%h", host, 1).replacen("%n", host, 1).replacen("%p", "22", 1).replacen("%r", user, 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{agreed, create_process, open_remote_ssh, open_remote_ssh_expand, shell};

    fn words(text: &str) -> Vec<String> {
        text.split('|').map(str::to_owned).collect()
    }

    /// The table in Microsoft's "Parsing C command-line arguments", and the program's name.
    #[test]
    fn create_process_by_its_documentation() {
        for (command, expected) in [
            (r#"x "a b c" d e"#, "x|a b c|d|e"),
            (r#"x "ab\"c" "\\" d"#, r#"x|ab"c|\|d"#),
            (r#"x a\\\b d"e f"g h"#, r"x|a\\\b|de fg|h"),
            (r#"x a\\\"b c d"#, r#"x|a\"b|c|d"#),
            (r#"x a\\\\"b c" d e"#, r"x|a\\b c|d|e"),
            (r#"x a"b"" c d"#, r#"x|ab" c d"#),
            (r#""C:\Program Files\x.exe" connect"#, r"C:\Program Files\x.exe|connect"),
            (r"C:\Program Files\x.exe connect", r"C:\Program|Files\x.exe|connect"),
            (r#""C:\dir\" y"#, r"C:\dir\|y"),
            ("C:/Users/Ada/x.exe  connect \t --user %r h", "C:/Users/Ada/x.exe|connect|--user|%r|h"),
            (r#"x """#, "x|"),
        ] {
            assert_eq!(create_process(command), words(expected), "{command}");
        }
        assert!(create_process(" ").is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_by_what_the_one_here_does() {
        for command in [
            "x a  'b c' \"d e\"",
            r#"x a\ b 'c\d' "e\f" "g\"h" "i\\j""#,
            "x ''\"\"a'b'\"c\"",
            "x /c/Users/é -- a:b,c@d+e.f_g-h %r",
        ] {
            let script = format!("printf '%s|' {}", &command[2..]);
            let said = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
            let said = String::from_utf8(said.stdout).unwrap();
            assert_eq!(shell(command).unwrap(), words(&format!("x|{}", said.strip_suffix('|').unwrap())), "{command}");
        }
        for command in
            ["x $HOME", "x `y`", "x *", "x; y", "x & y", "x 'a", "x \"a", "x \"$a\"", "x ~", "x #y", "a=b x", "x\\"]
        {
            assert_eq!(shell(command), None, "{command}");
        }
    }

    #[test]
    fn open_remote_sshs_backslash_escapes_everywhere() {
        assert_eq!(open_remote_ssh(r"C:\Users\ada\x.exe connect"), words("C:Usersadax.exe|connect"));
        assert_eq!(
            open_remote_ssh(r#""C:/Program Files/x.exe" 'a b' c\ d ''"#),
            words("C:/Program Files/x.exe|a b|c d|")
        );
        assert_eq!(open_remote_ssh_expand("%r@%h:%p", "h", "u"), "u@h:22");
        assert_eq!(open_remote_ssh_expand("%h-%h%%", "h", "u"), "h-%h%%");
    }

    #[test]
    fn only_what_all_read_alike_is_agreed() {
        for command in [
            "C:/Users/Ada/labctl-ssh-proxy.exe connect --user %r playground-x",
            "\"C:/Program Files/labctl/labctl-ssh-proxy.exe\" --local connect --user %r playground-x",
            "\"/Users/Ada L/bin/labctl-ssh-proxy\" connect --user %r %h",
        ] {
            assert_eq!(agreed(command).unwrap().len(), if command.contains("--local") { 6 } else { 5 }, "{command}");
        }
        for command in [
            r"C:\Users\Ada\labctl-ssh-proxy.exe connect",
            r#""C:\Program Files\x.exe" connect"#,
            "'/Users/Ada L/x' connect",
            "/Users/Ada\\ L/x connect",
            "/opt/$x connect",
            "/opt/a'b connect",
            "C:/a\"b\"/x connect",
        ] {
            assert!(agreed(command).is_err(), "{command}");
        }
    }

    proptest! {
        #[test]
        fn no_command_makes_them_panic(command in ".{0,40}") {
            let _ = (create_process(&command), shell(&command), open_remote_ssh(&command), agreed(&command));
        }

        #[test]
        fn plain_words_are_words(all in prop::collection::vec("[a-zA-Z0-9/:._@,+-]{1,8}", 1..5)) {
            prop_assert_eq!(agreed(&all.join(" ")).unwrap(), all);
        }
    }
}
