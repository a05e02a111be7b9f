"""GatewayClasses, Gateways and ListenerSets, with their listeners, parameters and limits."""
