//! Checks JSON against docs/schema/output.json, with the part of JSON Schema that this file uses. Other keywords in it
//! are errors, and so are members that it does not describe.

use serde_json::Value;

/// Checks `value` against an entry of the schema's `$defs`.
#[track_caller]
pub fn check(entry: &str, value: &Value) {
    let schema: Value = serde_json::from_str(include_str!("../../../docs/schema/output.json")).unwrap();
    let found = &schema["$defs"][entry];
    assert!(found.is_object(), "the schema has no {entry}");
    if let Err(why) = fits(&schema, found, value, entry, false) {
        panic!("{why}\nin {value:#}");
    }
}

/// With `is_open`, members that are not described pass, as other validators let them.
fn fits(root: &Value, schema: &Value, value: &Value, at: &str, is_open: bool) -> Result<(), String> {
    let wrong = |why: String| Err(format!("{at}: {why}"));
    for (keyword, wanted) in schema.as_object().unwrap() {
        match keyword.as_str() {
            "description" | "items" | "properties" => {}
            "$ref" => {
                let name = wanted.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                fits(root, &root["$defs"][name], value, at, is_open)?;
            }
            "oneOf" | "anyOf" => {
                let schemas = wanted.as_array().unwrap();
                let all = |is_open| -> Vec<Result<(), String>> {
                    schemas.iter().map(|one| fits(root, one, value, at, is_open)).collect()
                };
                let (open, all) = (all(true), all(is_open));
                if keyword == "oneOf" && open.iter().filter(|one| one.is_ok()).count() != 1 {
                    return wrong(format!("not exactly one of: {open:?}"));
                }
                if all.iter().all(Result::is_err) {
                    return wrong(format!("none of: {all:?}"));
                }
            }
            "const" if value != wanted => return wrong(format!("{value} is not {wanted}")),
            "enum" if !wanted.as_array().unwrap().contains(value) => {
                return wrong(format!("{value} is not in {wanted}"));
            }
            "const" | "enum" => {}
            "type" => {
                let types = match wanted {
                    Value::Array(types) => types.clone(),
                    one => vec![one.clone()],
                };
                if !types.iter().any(|name| is_a(value, name.as_str().unwrap())) {
                    return wrong(format!("{value} is not of type {wanted}"));
                }
            }
            "pattern" => {
                // The schema uses only these two.
                let text = value.as_str().unwrap();
                let id = match wanted.as_str().unwrap() {
                    "^[0-9a-f]{24}$" => text,
                    "^playground-[0-9a-f]{24}$" => text.strip_prefix("playground-").unwrap_or_default(),
                    other => panic!("{other}"),
                };
                if id.len() != 24 || !id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
                    return wrong(format!("{text} does not match {wanted}"));
                }
            }
            "required" => {
                for name in wanted.as_array().unwrap() {
                    if value.is_object() && value.get(name.as_str().unwrap()).is_none() {
                        return wrong(format!("{name} is missing"));
                    }
                }
            }
            other => panic!("the schema uses {other}"),
        }
    }
    if let (Some(properties), Some(members)) = (schema.get("properties"), value.as_object()) {
        for (name, member) in members {
            match properties.get(name) {
                Some(property) => fits(root, property, member, &format!("{at}.{name}"), is_open)?,
                None if is_open => {}
                None => return wrong(format!("{name} is not documented")),
            }
        }
    }
    if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
        for (i, value) in values.iter().enumerate() {
            fits(root, items, value, &format!("{at}[{i}]"), is_open)?;
        }
    }
    Ok(())
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    }
}
