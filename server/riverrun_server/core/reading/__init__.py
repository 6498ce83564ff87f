"""What a reader is sent and when: pure machines behind Subscribe, Read, Fetch and Tail."""
