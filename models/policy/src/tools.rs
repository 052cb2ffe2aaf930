//! The operators as function signatures, for chat templates that list tools.

use serde_json::{Value, json};

/// The signatures in the JSON form that chat templates of the Qwen family take as `tools`.
pub fn tool_schemas() -> Value {
    let seconds = |what: &str| json!({"type": "number", "description": what});
    let frames = json!({"type": "integer", "description": "how many frames to see, at most 16"});
    json!([
        tool(
            "backtrack",
            "Look at the seconds right before a moment: what led to it.",
            json!({
                "anchor": seconds("the moment, in seconds"),
                "span": seconds("how many seconds to go back"),
                "frames": frames,
            }),
        ),
        tool(
            "expand",
            "Look at a span widened to both sides, less densely: what is around it.",
            json!({
                "start": seconds("start of the span, in seconds"),
                "end": seconds("end of the span, in seconds"),
                "factor": {"type": "number", "description": "new length over old length"},
            }),
        ),
        tool(
            "sample",
            "Look at a span more densely: what exactly happens in it.",
            json!({
                "start": seconds("start of the span, in seconds"),
                "end": seconds("end of the span, in seconds"),
                "frames": frames,
            }),
        ),
        tool(
            "final",
            "End the inquiry with a verdict.",
            json!({
                "clips": {"type": "array", "items": {"type": "object", "properties": {
                    "start": seconds("first second"),
                    "end": seconds("last second"),
                    "label": {"type": "string"},
                    "evidence": {"type": "array", "items": {"type": "integer"}},
                }}},
                "verdict": {"type": "string", "enum": ["anomalous", "normal"]},
                "explanation": {"type": "string"},
            }),
        ),
    ])
}

fn tool(name: &str, description: &str, properties: Value) -> Value {
    let required: Vec<&String> = properties.as_object().map_or(vec![], |o| o.keys().collect());
    json!({"type": "function", "function": {
        "name": name,
        "description": description,
        "parameters": {"type": "object", "properties": properties, "required": required},
    }})
}
