"""Networks: tensors in, tensors out. No files, no option dicts, no text encoder inside."""
