"""A store that engines share: Valkey, or Redis. Imported only where a setting names one."""
