"""What Gatelodge promises under attack and in the dark: by letter, with tests, what turns them red, and a figure."""
