//! A container's object, amended by a patch in one of the three forms that `kubectl patch` knows. Pure.

use clap::ValueEnum;
use serde_json::{Map, Value};

/// The form of a patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// An object whose members take the place of those before; null takes one away (RFC 7396).
    #[default]
    Merge,
    /// The same, but lists of environment variables, ports, mounts and devices are merged by their keys.
    Strategic,
    /// A list of operations (RFC 6902).
    Json,
}

/// The lists of a container that a strategic patch merges, and the members by which their items are known: those with a
/// `patchMergeKey` in the API's reference. All other lists are replaced.
const KEYS: [(&str, &str); 4] =
    [("env", "name"), ("ports", "containerPort"), ("volumeDevices", "devicePath"), ("volumeMounts", "mountPath")];
/// The member of an object that says how it is meant.
const DIRECTIVE: &str = "$patch";

/// Amends `container`.
///
/// # Errors
/// The reason why it cannot be.
pub(crate) fn by(mut container: Value, patch: &Value, form: Form) -> Result<Value, String> {
    match form {
        Form::Merge => json_patch::merge(&mut container, patch),
        Form::Json => {
            let patch: json_patch::Patch = serde_json::from_value(patch.clone()).map_err(|e| e.to_string())?;
            json_patch::patch(&mut container, &patch).map_err(|e| e.to_string())?;
        }
        Form::Strategic => {
            let (Value::Object(before), Value::Object(patch)) = (container, patch.clone()) else {
                return Err("it is no object".to_owned());
            };
            container = Value::Object(object(before, patch, &KEYS)?);
        }
    }
    match directive_in(&container) {
        // The API would take it for a directive to itself.
        Some(name) => Err(format!("`{name}` is a directive, which only the form strategic knows")),
        None if container.is_object() => Ok(container),
        None => Err("the result is not an object".to_owned()),
    }
}

/// The name of a member that is none of a container's, but says how a patch is meant.
fn directive_in(value: &Value) -> Option<&str> {
    match value {
        Value::Object(members) => {
            let own = members.keys().find(|name| name.starts_with('$'));
            own.map(String::as_str).or_else(|| members.values().find_map(directive_in))
        }
        Value::Array(items) => items.iter().find_map(directive_in),
        _ => None,
    }
}

/// Merges an object of which these lists have keys.
fn object(mut before: Object, mut patch: Object, keys: &[(&str, &str)]) -> Result<Object, String> {
    match patch.remove(DIRECTIVE).as_ref().map(Value::as_str) {
        None | Some(Some("merge")) => {}
        Some(Some("replace")) => return Ok(patch),
        Some(Some("delete")) => return Ok(Map::new()),
        Some(other) => return Err(format!("`{DIRECTIVE}` cannot be {}", other.unwrap_or("this"))),
    }
    for (name, new) in patch {
        if name.starts_with('$') {
            return Err(format!("`{name}` is not known here"));
        }
        let key = keys.iter().find(|(list, _)| *list == name).map(|(_, key)| *key);
        let merged = match (before.remove(&name), new) {
            (_, Value::Null) => continue,
            (Some(Value::Object(before)), Value::Object(new)) => Value::Object(object(before, new, &[])?),
            (Some(Value::Array(before)), Value::Array(new)) if key.is_some() => {
                Value::Array(list(before, new, key.unwrap_or_default())?)
            }
            (_, new) => plain(new),
        };
        before.insert(name, merged);
    }
    Ok(before)
}

type Object = Map<String, Value>;

/// Merges a list whose items have this key. Items of the patch stay in its order; those of before come where they were
/// among them.
fn list(before: Vec<Value>, patch: Vec<Value>, key: &str) -> Result<Vec<Value>, String> {
    let directive = |item: &Value| item[DIRECTIVE].as_str().map(str::to_owned);
    if let Some(item) =
        patch.iter().find(|item| item.get(key).is_none() && directive(item).as_deref() != Some("replace"))
    {
        return Err(format!("{item} has no {key}"));
    }
    if patch.iter().any(|item| directive(item).as_deref() == Some("replace")) {
        let is_item = |item: &Value| directive(item).as_deref() != Some("replace");
        return Ok(patch.into_iter().filter(is_item).map(plain).collect());
    }
    let place = |item: &Value| before.iter().position(|old| old[key] == item[key]);
    let is_named = |old: &Value| patch.iter().any(|item| item[key] == old[key]);
    let mut named = Vec::new();
    for item in &patch {
        if directive(item).as_deref() == Some("delete") {
            continue;
        }
        let old = place(item).map(|place| before[place].clone());
        named.push(match (old, item.clone()) {
            (Some(Value::Object(old)), Value::Object(item)) => Value::Object(object(old, item, &[])?),
            (_, item) => plain(item),
        });
    }
    let mut others = before.iter().filter(|old| !is_named(old)).peekable();
    let mut merged = Vec::new();
    for item in named {
        while let (Some(other), Some(there)) = (others.peek(), place(&item))
            && place(other).is_some_and(|place| place < there)
        {
            merged.extend(others.next().cloned());
        }
        merged.push(item);
    }
    merged.extend(others.cloned());
    Ok(merged)
}

/// A value of a patch where there was none: without what only says how it is meant.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let kept = members.into_iter().filter(|(name, value)| !name.starts_with('$') && !value.is_null());
            Value::Object(kept.map(|(name, value)| (name, plain(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(plain).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::{Form, by};

    #[derive(Deserialize)]
    struct Judged {
        container: Value,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        form: String,
        patch: Value,
        /// Null for a patch that is refused.
        result: Value,
    }

    /// The judge is cdebug's `Override` with apimachinery 0.34.4 and evanphx/json-patch 4.12.0, which has made the results.
    #[test]
    fn a_container_is_amended_as_kubernetes_own_clients_do() {
        let Judged { container, cases } =
            serde_json::from_str(include_str!("../../tests/golden/override.json")).unwrap();
        assert!(cases.len() > 40);
        for Case { form, patch, result } in cases {
            let kind = clap::ValueEnum::from_str(&form, false).unwrap();
            let made = by(container.clone(), &patch, kind);
            assert_eq!(made.clone().map(told).unwrap_or_default(), told(result), "{form} {patch}: {made:?}");
        }
    }

    /// A container without the members that its type in Go leaves out, because they say what is so without them.
    fn told(value: Value) -> Value {
        let says_nothing = |value: &Value| {
            value == false
                || value.as_array().is_some_and(Vec::is_empty)
                || value.as_object().is_some_and(|all| all.is_empty())
        };
        match value {
            Value::Object(all) => {
                let all = all.into_iter().map(|(name, value)| (name, told(value)));
                Value::Object(all.filter(|(_, value)| !says_nothing(value)).collect())
            }
            Value::Array(items) => Value::Array(items.into_iter().map(told).collect()),
            other => other,
        }
    }

    #[test]
    fn what_is_no_container_any_more_is_refused() {
        let container = serde_json::json!({"name": "a", "env": []});
        for (form, patch, why) in [
            (Form::Merge, "[]", "the result is not an object"),
            (Form::Merge, "null", "the result is not an object"),
            (Form::Json, r#"[{"op": "remove", "path": ""}]"#, ""),
            (Form::Strategic, "3", "is no object"),
            (Form::Merge, r#"{"securityContext": {"$patch": "replace"}}"#, "`$patch` is a directive"),
            (Form::Strategic, r#"{"$retainKeys": ["a"]}"#, "`$retainKeys` is not known here"),
        ] {
            let error = by(container.clone(), &serde_json::from_str(patch).unwrap(), form).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
