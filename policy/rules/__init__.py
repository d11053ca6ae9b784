"""One module per rule; its name is the rule id that users see."""
