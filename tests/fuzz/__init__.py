"""Files that nobody vouches for: whatever the bytes, a value or an error of the family, soon, and in little memory."""
