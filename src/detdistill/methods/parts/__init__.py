"""What several methods are made of, or what would hide one method's idea."""
