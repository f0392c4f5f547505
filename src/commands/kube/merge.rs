//! Adds our context to the user's kubeconfig, and removes it again. Pure.
//!
//! Each of our three items is one line at the beginning of its list, so that nothing else moves. kubectl may rewrite
//! the whole file afterwards, as `kubectl config use-context` does. To remove our items, we therefore look for their
//! names, in whatever form kubectl has written them.

use serde_json::{Value, json};

use crate::{
    cluster::kubeconfig::{Current, value},
    error::{Error, Kind, Result},
};

/// The lists, and the key of an item's body in each.
const LISTS: [(&str, &str); 3] = [("clusters", "cluster"), ("contexts", "context"), ("users", "user")];

fn refuse(why: &str) -> Error {
    Error::new(Kind::File, format!("your kubeconfig cannot be edited: {why}"))
        .with_hint("leave out --merge, and use the file that `kube` prints")
}

/// Reports whether `text` has a context, a cluster or a user called `name`. A text that is no kubeconfig has none.
pub(super) fn has(text: &str, name: &str) -> bool {
    let parsed = value(text).unwrap_or_default();
    let is_it = |list: &str| parsed[list].as_array().is_some_and(|items| items.iter().any(|item| item["name"] == name));
    LISTS.iter().any(|(list, _)| is_it(list))
}

/// Adds a context, a cluster and a user called `name`. With `alone`, the text is the user's whole configuration, and the
/// context becomes the current one if there is no other.
///
/// # Errors
/// [`Kind::File`] when the text has one of that name, is no kubeconfig or cannot be edited.
pub fn add(text: &str, name: &str, current: &Current, alone: bool) -> Result<String> {
    if has(text, name) {
        return Err(refuse(&format!("it has a context, cluster or user {name} of your own")));
    }
    let newline = newline(text);
    let mut text = text.to_owned();
    if text.trim().is_empty() {
        text.push_str(&format!("apiVersion: v1{newline}kind: Config{newline}"));
        if alone {
            text.push_str(&format!("current-context: {name}{newline}"));
        }
    }
    let before = value(&text).map_err(|why| refuse(&why))?;
    if !before.is_object() {
        return Err(refuse("it is not a kubeconfig"));
    }
    let mut context = json!({ "cluster": name, "user": name });
    if let Some(namespace) = &current.namespace {
        context["namespace"] = namespace.as_str().into();
    }
    let mut expected = before;
    for ((list, body), contents) in LISTS.into_iter().zip([&current.cluster, &context, &current.user]) {
        let item = json!({ "name": name, body: contents });
        text = insert(&text, list, &format!("- {item}"), newline)?;
        match &mut expected[list] {
            Value::Array(items) => items.insert(0, item),
            other => *other = json!([item]),
        }
    }
    same(&text, &expected)?;
    // Add only what `remove` can remove again.
    remove(&text, name)?;
    Ok(text)
}

/// Removes the context, cluster and user called `name`.
///
/// # Errors
/// As [`add`].
pub fn remove(text: &str, name: &str) -> Result<String> {
    if text.trim().is_empty() {
        return Ok(text.to_owned());
    }
    let mut expected = value(text).map_err(|why| refuse(&why))?;
    if !expected.is_object() {
        return Err(refuse("it is not a kubeconfig"));
    }
    let mut edited = text.to_owned();
    for (list, _) in LISTS {
        let Some(items) = expected.get_mut(list).and_then(Value::as_array_mut) else { continue };
        let before = items.len();
        items.retain(|item| item["name"] != name);
        if items.len() < before {
            edited = without(&edited, list, name)?;
        }
    }
    if expected.get("current-context").is_some_and(|context| context == name) {
        expected["current-context"] = "".into();
        let (start, end) = key_line(&edited, "current-context").ok_or_else(|| refuse("it is not in block style"))?;
        let line_end = edited[start..end].trim_end_matches(['\r', '\n']).len();
        edited.replace_range(start..start + line_end, "current-context: \"\"");
    }
    same(&edited, &expected)?;
    Ok(edited)
}

/// Checks that `text` has the expected values. An empty list equals a missing one.
fn same(text: &str, expected: &Value) -> Result<()> {
    let plain = |value: &Value| {
        let mut value = value.clone();
        if let Some(members) = value.as_object_mut() {
            members.retain(|_, member| !member.is_null() && member.as_array().is_none_or(|items| !items.is_empty()));
        }
        value
    };
    match value(text) {
        Ok(after) if plain(&after) == plain(expected) => Ok(()),
        Ok(_) | Err(_) => Err(refuse("its format is unusual")),
    }
}

fn newline(text: &str) -> &'static str {
    if text.contains("\r\n") { "\r\n" } else { "\n" }
}

/// Finds the line of a top-level key, with its line break.
fn key_line(text: &str, key: &str) -> Option<(usize, usize)> {
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        if line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':')) {
            return Some((at, at + line.len()));
        }
        at += line.len();
    }
    None
}

/// Returns the text after the colon, without a comment.
fn inline(line: &str) -> &str {
    let rest = line.split_once(':').map_or("", |(_, rest)| rest);
    rest.split(" #").next().unwrap_or_default().trim()
}

fn insert(text: &str, list: &str, item: &str, newline: &str) -> Result<String> {
    let mut text = text.to_owned();
    if !text.is_empty() && !text.ends_with('\n') {
        text.push_str(newline);
    }
    let Some((start, end)) = key_line(&text, list) else {
        text.push_str(&format!("{list}:{newline}{item}{newline}"));
        return Ok(text);
    };
    match inline(&text[start..end]) {
        "" => {
            let first = text[end..].lines().find(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
            let dash = first.filter(|line| line.trim_start_matches(' ').starts_with("- "));
            let indent = dash.map_or(0, |line| line.len() - line.trim_start_matches(' ').len());
            text.insert_str(end, &format!("{}{item}{newline}", " ".repeat(indent)));
        }
        "[]" | "null" | "~" => text.replace_range(start..end, &format!("{list}:{newline}{item}{newline}")),
        _ => return Err(refuse(&format!("its {list} are not in block style"))),
    }
    Ok(text)
}

/// Removes the items called `name` from a list in block style.
fn without(text: &str, list: &str, name: &str) -> Result<String> {
    let (start, end) = key_line(text, list).ok_or_else(|| refuse("it is not in block style"))?;
    let newline = newline(text);
    let mut out = text[..end].to_owned();
    let mut item = String::new();
    let mut dash = None;
    let mut kept = false;
    let mut done = false;
    let mut flush = |item: &mut String, out: &mut String| -> Result<()> {
        let parsed = value(item).map_err(|why| refuse(&why))?;
        if parsed.as_array().is_some_and(|items| items.iter().any(|item| item["name"] == name)) {
            item.clear();
        } else {
            kept |= parsed.as_array().is_some_and(|items| !items.is_empty());
            out.push_str(&std::mem::take(item));
        }
        Ok(())
    };
    // A comment between two items belongs to the second.
    let mut between = String::new();
    for line in text[end..].split_inclusive('\n') {
        let bare = line.trim_start_matches(' ');
        let indent = line.len() - bare.len();
        if done {
            out.push_str(line);
        } else if bare.trim().is_empty() || bare.starts_with('#') {
            between.push_str(line);
        } else if dash.is_some_and(|dash| indent > dash) {
            item.push_str(&std::mem::take(&mut between));
            item.push_str(line);
        } else {
            if dash.is_some() {
                flush(&mut item, &mut out)?;
            }
            out.push_str(&std::mem::take(&mut between));
            if bare.starts_with("- ") && dash.is_none_or(|dash| dash == indent) {
                dash = Some(indent);
                item.push_str(line);
            } else {
                done = true;
                out.push_str(line);
            }
        }
    }
    if !done && dash.is_some() {
        flush(&mut item, &mut out)?;
    }
    out.push_str(&between);
    if !kept {
        out.replace_range(start..end, &format!("{list}: []{newline}"));
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{add, remove};
    use crate::cluster::kubeconfig::{Current, value};

    const OWN: &str = "\
# mine
apiVersion: v1
kind: Config
clusters:
  # at home
  - name: home
    cluster: {server: https://home}
contexts:
- name: home
  context:
    cluster: home
    user: me
current-context: home
users: []
";

    fn ours() -> Current {
        Current {
            cluster: json!({ "server": "https://127.0.0.1:1", "certificate-authority-data": "AA==" }),
            user: json!({ "token": "t" }),
            namespace: Some("ns".into()),
        }
    }

    #[test]
    fn what_is_added_can_be_used_and_taken_away() {
        for text in [OWN, &OWN.replace('\n', "\r\n"), "", "apiVersion: v1\nkind: Config", "clusters: null\nusers: ~\n"]
        {
            let added = add(text, "playground-x", &ours(), true).unwrap();
            let parsed = value(&added).unwrap();
            assert_eq!(
                parsed["contexts"][0],
                json!({"name": "playground-x", "context": {"cluster": "playground-x", "user": "playground-x", "namespace": "ns"}})
            );
            assert_eq!(parsed["clusters"][0]["cluster"]["server"], "https://127.0.0.1:1");
            assert_eq!(parsed["users"][0]["user"]["token"], "t");
            for line in
                text.lines().filter(|line| *line != "users: []" && !line.contains("null") && !line.contains('~'))
            {
                assert!(added.lines().any(|new| new == line), "{line:?} is kept in {added:?}");
            }
            assert_eq!(parsed["current-context"] == "playground-x", text.is_empty());
            let error = add(&added, "playground-x", &ours(), true).unwrap_err();
            assert!(error.message().contains("of your own"), "one of that name is the user's: {error}");
            let removed = remove(&added, "playground-x").unwrap();
            assert!(!removed.contains("playground-x"), "{removed}");
            if text == OWN {
                assert_eq!(removed, OWN);
            }
        }
    }

    /// Another file of the chain may name the current context.
    #[test]
    fn a_file_of_several_gets_no_current_context() {
        let added = add("", "playground-x", &ours(), false).unwrap();
        assert_eq!(value(&added).unwrap()["current-context"], json!(null));
        assert!(!remove(&added, "playground-x").unwrap().contains("playground-x"));
    }

    #[test]
    fn it_is_found_however_kubectl_has_written_it() {
        let rewritten = "\
apiVersion: v1
clusters:
- cluster:
    server: https://home
  name: home
- cluster:
    certificate-authority-data: AA==
    server: https://127.0.0.1:1
  name: playground-x
contexts:
- context:
    cluster: playground-x
    user: playground-x
  name: playground-x
current-context: playground-x
kind: Config
users:
- name: playground-x
  user:
    token: t
";
        assert_eq!(
            remove(rewritten, "playground-x").unwrap(),
            "\
apiVersion: v1
clusters:
- cluster:
    server: https://home
  name: home
contexts: []
current-context: \"\"
kind: Config
users: []
"
        );
    }

    /// Found by fuzzing: a quoted text that continues at the left margin looks like the end of the list.
    #[test]
    fn what_could_not_be_taken_away_is_not_added() {
        let text = "clusters:\n  - {\"name\": \"a\nb\"}\n";
        assert!(remove(text, "playground-x").is_ok());
        match add(text, "playground-x", &ours(), true) {
            Ok(added) => assert!(!remove(&added, "playground-x").unwrap().contains("playground-x")),
            Err(error) => assert!(error.message().contains("cannot be edited"), "{error}"),
        }
    }

    #[test]
    fn what_cannot_be_edited_is_refused() {
        for text in ["clusters: [{name: a}]\n", "{\"clusters\": []}", "hello", "a: [\n", "- 1\n"] {
            assert!(add(text, "playground-x", &ours(), true).is_err(), "{text}");
        }
        assert_eq!(remove("clusters: [{name: a}]\n", "playground-x").unwrap(), "clusters: [{name: a}]\n");
    }
}
