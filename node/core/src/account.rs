//! Accounts: people who sign in and programs that call the API.
