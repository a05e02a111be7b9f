"""What a person asks: why a request gets its answer, what a status says, what a filter costs."""
