// SPDX-License-Identifier: LGPL-2.1-or-later
//! As much of JSON Schema as the schemas in `docs` use.

use savevm_stream::inspect::json::Json;

/// A schema. References in it lead to its `$defs`.
pub struct Schema {
    root: Json<'static>,
}

impl Schema {
    /// Reads a schema from `docs`.
    pub fn from_docs(name: &str) -> Self {
        let path = format!("{}/../docs/{name}", env!("CARGO_MANIFEST_DIR"));
        Self { root: super::json(std::fs::read(path).unwrap()) }
    }

    /// What does not fit the definition of this name, with its path; `None` if all fits. Members that the schema does not
    /// describe do not fit: the schema is to be complete.
    pub fn complaint(&self, definition: &str, value: &Json<'_>) -> Option<String> {
        self.definition(definition)
            .map_or_else(|| Some("no such definition".into()), |schema| self.check(schema, value).err())
    }

    fn definition(&self, name: &str) -> Option<&Json<'static>> {
        self.root.get("$defs")?.get(name)
    }

    fn check(&self, schema: &Json<'_>, value: &Json<'_>) -> Result<(), String> {
        for (keyword, argument) in schema.members() {
            match &**keyword {
                "$ref" => {
                    let name = argument.as_str().and_then(|name| name.strip_prefix("#/$defs/")).ok_or("a reference")?;
                    self.check(self.definition(name).ok_or_else(|| format!("no {name}"))?, value)?;
                }
                "type" => {
                    let mut types =
                        argument.as_str().into_iter().chain(argument.elements().iter().filter_map(Json::as_str));
                    if !types.any(|name| is_of(name, value)) {
                        return Err(format!(": {value:?} is not {argument:?}"));
                    }
                }
                "const" if value != argument => return Err(format!(": {value:?} is not {argument:?}")),
                "enum" if !argument.elements().contains(value) => {
                    return Err(format!(": {value:?} is none of {argument:?}"));
                }
                "minimum" if value.as_f64().is_some_and(|number| Some(number) < argument.as_f64()) => {
                    return Err(format!(": {value:?} is less than {argument:?}"));
                }
                "pattern" => pattern(argument.as_str().unwrap_or_default(), value)?,
                "minItems" if (value.elements().len() as u64) < argument.as_u64().unwrap() => {
                    return Err(": too few".into());
                }
                "maxItems" if value.elements().len() as u64 > argument.as_u64().unwrap() => {
                    return Err(": too many".into());
                }
                "required" => {
                    for name in argument.elements().iter().filter_map(Json::as_str) {
                        value.get(name).ok_or_else(|| format!(": {name} is missing"))?;
                    }
                }
                "properties" => self.members(argument, value)?,
                "items" => {
                    for (at, element) in value.elements().iter().enumerate() {
                        self.check(argument, element).map_err(|why| format!("[{at}]{why}"))?;
                    }
                }
                "anyOf" => self.some(argument, value).map(drop)?,
                "oneOf" => match self.some(argument, value)? {
                    1 => {}
                    count => return Err(format!(": {count} alternatives fit {value:?}")),
                },
                "const" | "enum" | "minimum" | "minItems" | "maxItems" | "description" => {}
                other => return Err(format!(": the keyword {other} is not known here")),
            }
        }
        Ok(())
    }

    fn members(&self, properties: &Json<'_>, value: &Json<'_>) -> Result<(), String> {
        for (name, member) in value.members() {
            let schema = properties.get(name).ok_or_else(|| format!(".{name} is not described"))?;
            self.check(schema, member).map_err(|why| format!(".{name}{why}"))?;
        }
        Ok(())
    }

    /// How many of the alternatives fit; an error if none does.
    fn some(&self, alternatives: &Json<'_>, value: &Json<'_>) -> Result<usize, String> {
        let tried: Vec<_> = alternatives.elements().iter().map(|schema| self.check(schema, value)).collect();
        match tried.iter().filter(|tried| tried.is_ok()).count() {
            0 => Err(format!(": {}", tried.into_iter().filter_map(Result::err).collect::<Vec<_>>().join(" | "))),
            count => Ok(count),
        }
    }
}

fn is_of(name: &str, value: &Json<'_>) -> bool {
    match name {
        "null" => *value == Json::Null,
        "boolean" => matches!(value, Json::Bool(_)),
        // Numbers beyond 63 bits are read as floating point.
        "integer" => matches!(value, Json::Int(_)) || value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "string" => value.as_str().is_some(),
        "array" => matches!(value, Json::Array(_)),
        "object" => matches!(value, Json::Object(_)),
        _ => false,
    }
}

/// The patterns that the schemas use: hex digits.
fn pattern(pattern: &str, value: &Json<'_>) -> Result<(), String> {
    let Some(text) = value.as_str() else { return Ok(()) };
    let is_hex = text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    let fits = match pattern {
        "^([0-9a-f]{2})*$" => is_hex && text.len() % 2 == 0,
        "^[0-9a-f]{32}$" => is_hex && text.len() == 32,
        _ => false,
    };
    if fits { Ok(()) } else { Err(format!(": {text} does not match {pattern}")) }
}
