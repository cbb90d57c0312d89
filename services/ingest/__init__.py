"""Takes events in, once each, and brings them to Kafka and to the lake."""
