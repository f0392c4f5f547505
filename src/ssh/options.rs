//! ssh's own command line, parsed as ssh does (getopt with the options of ssh(1)). Pure.

/// The options of an ssh that we run for its output. They hold off options of the user's that are meant for a session
/// of his own: forwards that are in use already, a terminal, a command, a shared connection. They come first, because
/// ssh uses the first value. An older ssh does not know all of them, and must not mind.
pub(crate) const FOR_OUTPUT: &[&str] = &[
    "-T",
    "-oIgnoreUnknown=*",
    "-oClearAllForwardings=yes",
    "-oRequestTTY=no",
    "-oSessionType=default",
    "-oStdinNull=no",
    "-oForkAfterAuthentication=no",
    "-oRemoteCommand=none",
    "-oPermitLocalCommand=no",
    "-oControlMaster=no",
    "-oControlPath=none",
    "-oTunnel=no",
    "-oForwardX11=no",
    "-oProxyUseFdpass=no",
    // ssh says at this level why a negotiation has failed.
    "-oLogLevel=INFO",
];

/// The options of ssh(1) that take an argument.
pub(crate) const TAKES_ARGUMENT: &str = "bceilmopwBDEFIJLOPQRSW";

/// An iterator over the options that take an argument, each with it, up to ssh's command.
#[derive(Debug)]
pub(crate) struct SshOptions<I> {
    words: I,
    host_seen: bool,
}

impl<'a, I: Iterator<Item = &'a str>> SshOptions<I> {
    /// Parses the words after the program's name.
    pub(crate) fn new(words: I) -> Self {
        SshOptions { words, host_seen: false }
    }

    /// Parses the words after the host.
    pub(crate) fn after_host(words: I) -> Self {
        SshOptions { words, host_seen: true }
    }

    /// Returns the next word, an option or not.
    pub(crate) fn word(&mut self) -> Option<&'a str> {
        self.words.next()
    }
}

impl<'a, I: Iterator<Item = &'a str>> Iterator for SshOptions<I> {
    type Item = (char, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let word = self.words.next()?;
            let flags = match word.strip_prefix('-') {
                Some("-") => return None,
                Some(flags) if !flags.is_empty() => flags,
                // The first word that is no option is the host, and options may follow it. The second one begins the
                // command.
                Some(_) | None if self.host_seen => return None,
                Some(_) | None => {
                    self.host_seen = true;
                    continue;
                }
            };
            let Some((at, flag)) = flags.char_indices().find(|(_, flag)| TAKES_ARGUMENT.contains(*flag)) else {
                continue;
            };
            return match &flags[at + flag.len_utf8()..] {
                "" => Some((flag, self.words.next()?)),
                attached => Some((flag, attached)),
            };
        }
    }
}

/// Returns the value of an option in the form of `-o` (ssh_config(5)), if the option has this name.
pub(crate) fn value<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let line = line.trim();
    let end = line.find(|c: char| c.is_whitespace() || c == '=' || c == '"').unwrap_or(line.len());
    if !line[..end].eq_ignore_ascii_case(name) {
        return None;
    }
    let value = line[end..].trim_start();
    let value = value.strip_prefix('=').unwrap_or(value).trim_start();
    match value.chars().next() {
        Some(quote @ ('"' | '\'')) => value[1..].split(quote).next(),
        Some(_) | None => value.split([' ', '\t', '#']).next(),
    }
}

/// Reads a time as ssh and sshd write them (sshd_config(5), TIME FORMATS), in seconds. jiff's durations have no days and weeks.
pub(crate) fn seconds(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number: u64 = rest[..end].parse().ok()?;
        let unit = rest[end..].chars().next();
        let factor = match unit.map(|unit| unit.to_ascii_lowercase()) {
            None | Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86400,
            Some('w') => 7 * 86400,
            Some(_) => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
        rest = &rest[end + unit.map_or(0, char::len_utf8)..];
    }
    Some(total)
}
