"""What a request means, what the rules say, and why. Pure: values in, values out."""
