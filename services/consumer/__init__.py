"""Brings events from Kafka into ClickHouse, once each."""
