"""A trained model as others know it: its base model's public name, its card, and the folder that is handed on."""
