"""Who is measured: how each is started, and how one of its streams is opened."""
