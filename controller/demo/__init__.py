"""The canary demo: two versions of an app, steady load, and a gateway whose route moves under it."""
