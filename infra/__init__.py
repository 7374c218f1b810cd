"""The cloud: what packs, deploys, watches, prices and removes the service on AWS."""
