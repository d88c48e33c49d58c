"""Text in lines and columns, and the times in it."""
