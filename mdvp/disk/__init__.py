"""What is kept: the directories of the volumes, and the record of volumes and leases."""
