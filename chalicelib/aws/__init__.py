"""The AWS host: events of API Gateway and of the clock, and what answers and pushes to them."""
