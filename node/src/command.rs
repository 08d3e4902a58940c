//! Verbs of the command line: each goes to the running node over its socket, or works on the store when none runs.

use hie_protocol::message::{Demographics, PersonAddress, PersonIdentifier, PersonName};
use serde_json::json;

use crate::authority;
use crate::cli::arguments::{
    AccountCommand, Arguments, AuditCommand, Command, ConfigCommand, ConsentCommand, Find, Get, ImportCommand,
};
use crate::cli::output::Output;
use crate::config::Config;
use crate::fault::{Exit, Fault, Outcome};
use crate::home::Home;
use crate::order::{Asker, Order};
use crate::{demo, doctor, join, run as node, socket};

/// Runs a verb.
pub async fn run(arguments: Arguments, output: &Output) -> Outcome<Exit> {
    let home = Home::at(&arguments.home);
    match arguments.command {
        Command::Authority(command) => authority::command::run(command, output).await,
        Command::Invite(invite) => authority::command::invite(invite, output),
        Command::Init(init) => join::init(&home, init, output),
        Command::Join(options) => join::join(&home, options, output).await,
        Command::Serve(options) => node::serve(&home, options.standby, output).await,
        Command::Doctor => doctor::run(&home, output).await,
        Command::Demo(options) => demo::run(options, output).await,
        Command::Config(command) => config(&home, &command, output),
        Command::RenderFrame(render) => crate::frames::child(&render),
        Command::Status => order(&home, &Order::Status, output).await,
        Command::Find(find) => order(&home, &find_order(find)?, output).await,
        Command::Get(get) => order(&home, &get_order(get)?, output).await,
        Command::Import(command) => order(&home, &import_order(command)?, output).await,
        Command::Consent(command) => order(&home, &consent_order(command)?, output).await,
        Command::Audit(command) => order(&home, &audit_order(command), output).await,
        Command::Account(command) => order(&home, &account_order(command)?, output).await,
    }
}

/// Gives the order to the running node; without one, to this process if the order needs no other node.
async fn order(home: &Home, order: &Order, output: &Output) -> Outcome<Exit> {
    if socket::is_served(&home.socket()).await {
        return socket::send(&home.socket(), order, output).await;
    }
    if matches!(order, Order::Find { .. } | Order::Get { .. } | Order::Status) {
        return Err(Fault::new(
            Exit::Unreachable,
            "The node does not run.",
            format!("nobody listens at {}", home.socket().display()),
            "Start it with `hie serve`, or name its folder with --home.",
        ));
    }
    node::offline(home, order.clone(), output).await
}

fn config(home: &Home, command: &ConfigCommand, output: &Output) -> Outcome<Exit> {
    let config = Config::load(home)?;
    match command {
        ConfigCommand::Check => {
            output.data(format!("ok    {}", home.config().display()), &json!({ "ok": true }));
        }
        ConfigCommand::Show => {
            let value = serde_json::to_value(&config).map_err(Fault::because(
                Exit::Failed,
                "Cannot show the configuration.",
                "Report this.",
            ))?;
            output.data(config.to_toml()?, &value);
        }
    }
    Ok(Exit::Done)
}

/// An absolute path: the running node may stand in another folder.
fn absolute(path: &std::path::Path) -> Outcome<std::path::PathBuf> {
    std::path::absolute(path).map_err(Fault::because(
        Exit::Usage,
        "This path cannot be used.",
        "Check the path.",
    ))
}

fn asker(account: String, purpose: String, emergency: Option<String>, words: Option<String>) -> Asker {
    let purpose = if emergency.is_some() { "BTG".to_owned() } else { purpose };
    Asker {
        account,
        purpose,
        emergency: emergency.map(|reason| (reason, words.unwrap_or_default())),
    }
}

fn identifier(text: &str) -> Outcome<PersonIdentifier> {
    let (system, value) = text.split_once('|').ok_or_else(|| {
        Fault::new(
            Exit::Usage,
            format!("{} is not an identifier.", text.len()),
            "it has no |",
            "Write system|value, in quotes.",
        )
    })?;
    Ok(PersonIdentifier {
        system: system.to_owned(),
        value: value.to_owned(),
    })
}

fn find_order(find: Find) -> Outcome<Order> {
    let identifiers = find
        .identifier
        .iter()
        .map(|text| identifier(text))
        .collect::<Outcome<Vec<_>>>()?;
    let names = match find.family {
        Some(family) => vec![PersonName {
            family,
            given: find.given,
            prefix: None,
            suffix: None,
        }],
        None if identifiers.is_empty() => {
            let why = "neither a name nor an identifier is given";
            return Err(Fault::new(
                Exit::Usage,
                "Who is meant?",
                why,
                "Add --family, --given and --birth-date, or --identifier.",
            ));
        }
        None => Vec::new(),
    };
    let address = find.postal_code.map(|code| PersonAddress {
        postal_code: Some(code),
        ..PersonAddress::default()
    });
    let demographics = Demographics {
        names,
        birth_date: find.birth_date,
        sex: find.sex,
        identifiers,
        addresses: address.into_iter().collect(),
        telecoms: find.phone.into_iter().collect(),
    };
    Ok(Order::Find {
        asker: asker(find.account, find.purpose, find.emergency, find.words),
        demographics,
    })
}

fn get_order(get: Get) -> Outcome<Order> {
    let out = absolute(&get.out)?;
    Ok(Order::Get {
        asker: asker(get.account, get.purpose, get.emergency, get.words),
        reference: get.reference,
        out,
    })
}

fn import_order(command: ImportCommand) -> Outcome<Order> {
    Ok(match command {
        ImportCommand::Fhir(import) => Order::ImportFhir {
            path: absolute(&import.path)?,
            dry_run: import.dry_run,
        },
        ImportCommand::Dicom(import) => Order::ImportDicom {
            path: absolute(&import.path)?,
            dry_run: import.dry_run,
        },
        ImportCommand::Document(import) => Order::ImportDocument {
            path: absolute(&import.path)?,
            patient: import.patient,
            title: import.title,
            content_type: import.content_type,
            sensitivity: import.sensitivity,
        },
    })
}

fn consent_order(command: ConsentCommand) -> Outcome<Order> {
    let plain = |account: String| asker(account, "TREAT".to_owned(), None, None);
    Ok(match command {
        ConsentCommand::Add { path, account } => Order::ConsentAdd {
            asker: plain(account),
            path: absolute(&path)?,
        },
        ConsentCommand::List { patient, account } => Order::ConsentList {
            asker: plain(account),
            patient,
        },
    })
}

fn audit_order(command: AuditCommand) -> Order {
    match command {
        AuditCommand::Verify => Order::AuditVerify,
        AuditCommand::Search {
            text,
            account,
            emergency,
            limit,
        } => {
            let asker = asker(account, "HOPERAT".to_owned(), None, None);
            Order::AuditSearch {
                asker,
                text,
                emergency,
                limit,
            }
        }
    }
}

fn account_order(command: AccountCommand) -> Outcome<Order> {
    Ok(match command {
        AccountCommand::List => Order::AccountList,
        AccountCommand::Add {
            account,
            name,
            department,
            roles,
            password_file,
            client,
        } => {
            let password = match password_file {
                Some(path) => {
                    let text = std::fs::read_to_string(&path).map_err(Fault::because(
                        Exit::Usage,
                        "Cannot read the password file.",
                        "Check --password-file.",
                    ))?;
                    Some(text.trim_end_matches(['\r', '\n']).to_owned())
                }
                None => None,
            };
            Order::AccountAdd {
                account,
                name,
                department,
                roles,
                password,
                client,
            }
        }
    })
}
