"""Who asks: API keys for trusted back ends, JSON Web Tokens for users."""
