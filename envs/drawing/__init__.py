"""Pictures that families draw of themselves."""
