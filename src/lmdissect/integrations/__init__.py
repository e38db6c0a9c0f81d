"""What plugs into other people's programs: a callback for anyone's Trainer."""
