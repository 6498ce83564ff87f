"""What the cluster agrees on: topics, who may lead a partition, brokers, and how these change."""
