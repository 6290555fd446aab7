"""Other people's agents: one module a framework, imported only when that framework is."""
