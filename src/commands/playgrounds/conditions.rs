//! The choices of a start (the platform's "init conditions"): those of the command line, those that are asked for, and
//! defaults.

use std::collections::BTreeMap;

use crate::{
    error::{Error, Kind, Result, printable},
    labs::{
        catalog::{Conditions, named, option, option_near},
        wire::{InitCondition, Misfit},
    },
    ui::{nearest::did_you_mean, notice, out},
};

/// The sentence for questions that are left unanswered.
const NOTHING: &str = "Nothing was started.";

/// A choice of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    key: String,
    value: String,
}

/// Parses `KEY=VALUE` for the argument parser.
///
/// # Errors
/// The words for a text without a key or without `=`.
pub(super) fn choice(text: &str) -> Result<Choice, String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok(Choice { key: key.trim().into(), value: value.into() }),
        _ => Err("write KEY=VALUE, such as \"Container runtime=docker\"".to_owned()),
    }
}

/// The right to ask for choices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Questions {
    /// Ask for those with a default, too.
    pub all: bool,
    /// Questions are possible at all.
    pub allowed: bool,
}

/// Completes the choices of a start of `name`: each is given, asked for, or has its default.
///
/// # Errors
/// [`Kind::Usage`] for a choice that there is not, a value that does not fit, and one that is missing and cannot be
/// asked for; [`Kind::Declined`] at the end of the input.
pub(super) async fn choose(
    name: &str,
    conditions: &Conditions,
    given: &[Choice],
    questions: Questions,
) -> Result<BTreeMap<String, String>> {
    let mut chosen: BTreeMap<String, String> =
        given.iter().map(|choice| (choice.key.clone(), choice.value.clone())).collect();
    // The platform knows more than we do.
    let Conditions::Known(all) = conditions else { return Ok(chosen) };
    check(name, all, &chosen)?;
    let can_ask = questions.allowed && out::can_ask();
    if questions.all && !can_ask {
        return Err(Error::new(
            Kind::Usage,
            "cannot ask for choices, because there is no terminal or questions are off",
        )
        .with_hint(format!(
            "leave out --ask, and name them: {}",
            all.iter().map(option).collect::<Vec<_>>().join(" ")
        )));
    }
    let is_open = |one: &&InitCondition| chosen.get(&one.key).is_none_or(String::is_empty);
    let open: Vec<&InitCondition> = all.iter().filter(is_open).collect();
    let needed: Vec<&InitCondition> = open.iter().filter(|one| one.is_needed()).copied().collect();
    if !needed.is_empty() && !can_ask {
        return Err(named(name, &needed, Kind::Usage)
            .with_hint(format!("add {}", needed.iter().map(|one| option(one)).collect::<Vec<_>>().join(" "))));
    }
    for one in open {
        let value = match questions.all || one.is_needed() {
            true => ask(one).await?,
            false => one.default.clone(),
        };
        chosen.insert(one.key.clone(), value);
    }
    chosen.retain(|_, value| !value.is_empty());
    Ok(chosen)
}

/// Checks the choices of the command line.
fn check(name: &str, all: &[InitCondition], chosen: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in chosen {
        let Some(condition) = all.iter().find(|one| one.key == *key) else {
            let keys: Vec<&str> = all.iter().map(|one| one.key.as_str()).collect();
            let hint = match keys[..] {
                [] => "leave out -i: its start has no choices".to_owned(),
                _ => format!("{}its choices are: {}", did_you_mean(key, keys.iter().copied()), keys.join(", ")),
            };
            return Err(Error::new(Kind::Usage, format!("playground {name} has no choice `{key}`")).with_hint(hint));
        };
        // Without a value it is open.
        if !value.is_empty()
            && let Err(misfit) = condition.check(value)
        {
            let hint = format!("use {}", option_near(condition, value));
            return Err(Error::new(Kind::Usage, unfit(key, value, &misfit)).with_hint(hint));
        }
    }
    Ok(())
}

fn unfit(key: &str, value: &str, misfit: &Misfit<'_>) -> String {
    match misfit {
        Misfit::Missing => format!("{key} needs a value"),
        Misfit::NotAmong(options) => {
            format!("`{value}` is no value of {key}: there are {}", printable(&options.join(", ")))
        }
        Misfit::Unlike(pattern) => format!("`{value}` is no value of {key}: it must match {}", printable(pattern)),
    }
}

/// Asks for a value until it fits.
///
/// # Errors
/// [`Kind::Declined`] at the end of the input.
async fn ask(one: &InitCondition) -> Result<String> {
    let question = question(one);
    loop {
        let Some(answer) = out::ask(&question, NOTHING).await else {
            return Err(Error::new(Kind::Declined, NOTHING));
        };
        let value = meant(one, answer.trim());
        match one.check(&value) {
            Ok(()) => return Ok(value),
            Err(misfit) => notice::line(&unfit(&printable(&one.key), &value, &misfit)),
        }
    }
}

/// The question for a value: its options by number, and what Enter means.
fn question(one: &InitCondition) -> String {
    let key = printable(&one.key);
    let mut lines = Vec::new();
    if !one.options.is_empty() {
        lines.push(key.clone());
        lines
            .extend(one.options.iter().enumerate().map(|(i, option)| format!("  {:>2}  {}", i + 1, printable(option))));
    }
    let subject = if one.options.is_empty() { key } else { "A number or a value".to_owned() };
    let such_as = match &one.placeholder[..] {
        "" => String::new(),
        example => format!(", such as {}", printable(example)),
    };
    let on_enter = match (&one.default[..], one.nullable) {
        ("", true) => " (Enter for none)".to_owned(),
        ("", false) => String::new(),
        (default, _) => format!(" [{}]", printable(default)),
    };
    lines.push(format!("{subject}{such_as}{on_enter}: "));
    lines.join("\n")
}

/// The value that an answer means: an option by its number or in other upper and lower case, and the default for none.
fn meant(one: &InitCondition, answer: &str) -> String {
    if answer.is_empty() {
        return one.default.clone();
    }
    // An option that looks like a number comes first.
    if one.options.iter().any(|option| option == answer) {
        return answer.to_owned();
    }
    let by_number = answer.parse::<usize>().ok().and_then(|number| one.options.get(number.checked_sub(1)?));
    let by_name = || one.options.iter().find(|option| option.to_lowercase() == answer.to_lowercase());
    by_number.or_else(by_name).cloned().unwrap_or_else(|| answer.to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Choice, Questions, choice, choose, meant, question};
    use crate::labs::{catalog::Conditions, wire::InitCondition};

    fn conditions() -> Vec<InitCondition> {
        serde_json::from_value(serde_json::json!([
            { "key": "Container runtime", "default": "containerd", "options": ["containerd", "docker", "1"] },
            { "key": "Team", "placeholder": "blue", "validationRegex": "^[a-z]+$" },
            { "key": "Note", "nullable": true }
        ]))
        .unwrap()
    }

    fn chosen(given: &[&str]) -> Result<String, (String, String)> {
        let given: Vec<Choice> = given.iter().map(|text| choice(text).unwrap()).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let questions = Questions { all: false, allowed: false };
        match runtime.block_on(choose("x", &Conditions::Known(conditions()), &given, questions)) {
            Ok(all) => Ok(all.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("; ")),
            Err(e) => Err((e.message().to_owned(), e.hint().unwrap_or_default().to_owned())),
        }
    }

    #[test]
    fn what_is_given_is_checked_and_defaults_are_added() {
        assert_eq!(chosen(&["Team=red"]).unwrap(), "Container runtime=containerd; Team=red");
        assert_eq!(
            chosen(&["Team=red", "Note=a=b, c", "Container runtime=docker"]).unwrap(),
            "Container runtime=docker; Note=a=b, c; Team=red"
        );
        let wrong = |given: &[&str]| chosen(given).unwrap_err();
        let words = |message: &str, hint: &str| (message.to_owned(), hint.to_owned());
        assert_eq!(wrong(&[]), words("playground x needs a value for `Team`", "add -i Team=blue"));
        assert_eq!(wrong(&["Team="]), words("playground x needs a value for `Team`", "add -i Team=blue"));
        assert_eq!(
            wrong(&["team=red"]),
            words(
                "playground x has no choice `team`",
                "did you mean `Team`? its choices are: Container runtime, Team, Note"
            )
        );
        assert_eq!(
            wrong(&["Team=red", "Container runtime=podman"]),
            words(
                "`podman` is no value of Container runtime: there are containerd, docker, 1",
                "use -i \"Container runtime=containerd\""
            )
        );
        assert_eq!(wrong(&["Team=red", "Container runtime=dokcer"]).1, "use -i \"Container runtime=docker\"");
        assert_eq!(wrong(&["Team=R2"]), words("`R2` is no value of Team: it must match ^[a-z]+$", "use -i Team=blue"));
        for text in ["", "x", "=x", " =x"] {
            assert!(choice(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_is_a_number_a_value_or_enter() {
        let [runtime, team, note] = conditions().try_into().unwrap();
        let answers = [("", "containerd"), ("2", "docker"), ("1", "1"), ("DOCKER", "docker"), ("0", "0"), ("x", "x")];
        for (answer, value) in answers {
            assert_eq!(meant(&runtime, answer), value, "{answer}");
        }
        assert_eq!((meant(&team, "7"), meant(&note, "")), ("7".into(), String::new()));
        assert_eq!(
            question(&runtime),
            "Container runtime\n   1  containerd\n   2  docker\n   3  1\nA number or a value [containerd]: "
        );
        assert_eq!(
            (question(&team), question(&note)),
            ("Team, such as blue: ".into(), "Note (Enter for none): ".into())
        );
    }
}
