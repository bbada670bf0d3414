"""What several tests share: builders of specs, plans, archives and graphs, and plain references."""
