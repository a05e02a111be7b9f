"""Objects out of YAML files, checked as an API server would check them."""
