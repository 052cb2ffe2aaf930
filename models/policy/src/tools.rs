//! The operators as function signatures, for chat templates that list tools.

use minijinja::Value;

/// The signatures in the form that chat templates of the Qwen family take as `tools`.
#[derive(Clone, Debug)]
pub struct Tools(pub(crate) Value);

impl Tools {
    /// No tools: a template that can list them does not.
    pub fn none() -> Self {
        Self(Value::from(()))
    }
}

/// The signatures of the operators, keys in the order in which a checkpoint that calls functions was
/// taught to read them.
pub fn tool_schemas() -> Tools {
    Tools(serde_json::from_str(include_str!("tools.json")).expect("it comes with the program"))
}
