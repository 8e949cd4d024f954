"""The processes of a run: how they meet, agree, and miss one that is lost."""
