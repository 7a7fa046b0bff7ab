"""A scenario: YAML in, a frozen, validated configuration out."""
