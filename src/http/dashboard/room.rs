//! The page that makes room in a database. It says what would be deleted for that before anything is.

use actix_web::{HttpRequest, ResponseError as _, http::StatusCode, web};
use askama::Template;

use super::{
    Answer, Api, backups_of,
    door::see_other,
    error::PageError,
    form_of,
    id::Id,
    path_of,
    shell::{Shell, answer},
    show::counted,
};
use crate::{
    broker::InstanceView,
    http::{error::HttpError, request::query},
    model::{
        ids::InstanceId, instance::InstanceState, limits::prefix::KEY_PREFIX_BYTES_MAX,
        origin::Origin, sentence::capitalized, session::Session,
    },
};

/// What an empty field of the form stands for.
const NO_KEYS: &str = "No key is deleted.";

#[derive(Template)]
#[template(path = "room.html", whitespace = "minimize")]
struct RoomPage {
    shell: Shell,
    /// Why nothing was done.
    message: Option<String>,
    href: String,
    /// Where a backup is taken before.
    backups: String,
    name: String,
    is_ready: bool,
    prefix: String,
    prefix_max: usize,
    preview: Option<Preview>,
}

/// What it would do.
struct Preview {
    /// Why the broker would refuse it now.
    refusal: Option<String>,
    /// What becomes of the keys.
    effect: String,
    /// Whether keys may go.
    deletes: bool,
}

/// `GET /dashboard/instances/:iid/room`
pub async fn page(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    request: HttpRequest,
) -> Answer {
    let asked = query(&request, "prefix");
    let done = room(&api, &session, id.clone(), asked, None).await;
    match done {
        Ok(page) => Ok(answer(StatusCode::OK, &page)),
        Err(error) => told(&api, &session, id, Err(error)).await,
    }
}

/// `POST /dashboard/instances/:iid/room`
pub async fn make(
    api: web::Data<Api>,
    session: web::ReqData<Session>,
    Id(id): Id<InstanceId>,
    payload: web::Payload,
) -> Answer {
    let done = make_by(&api, &session, id.clone(), payload).await;
    told(&api, &session, id, done).await
}

async fn make_by(api: &Api, session: &Session, id: InstanceId, payload: web::Payload) -> Answer {
    let form = form_of(api, session, payload).await?;
    let view = api.broker.views.instance_view(session, id).await?;
    let prefix = Some(form.text("prefix").to_owned()).filter(|prefix| !prefix.is_empty());
    if prefix.is_some() && form.text("sure") != "yes" {
        let reason = "Nothing was deleted: say that you know that the keys are gone for good.";
        return Err(HttpError::bad_request(reason).into());
    }
    let made = api
        .broker
        .upkeep
        .relieve(&view.of, prefix, Origin::Dashboard);
    made.await?;
    // There it is seen how it goes on.
    Ok(see_other(&path_of(&view.of.instance.id)))
}

/// The answer to a form: where it leads, or the page with the reason why nothing was done.
async fn told(api: &Api, session: &Session, id: InstanceId, done: Answer) -> Answer {
    let error = match done {
        Err(error)
            if [StatusCode::BAD_REQUEST, StatusCode::CONFLICT].contains(&error.status_code()) =>
        {
            error
        }
        done => return done,
    };
    // As the form calls it.
    let reason = error.to_string().replace("delete_prefix", "the prefix");
    let reason = reason.trim_end_matches('.');
    let message = format!("{}.", capitalized(reason));
    // Who may not see the page hears the reason alone.
    let Ok(page) = room(api, session, id, None, Some(message)).await else {
        return Err(error);
    };
    Ok(error.with_page(|status| answer(status, &page)))
}

/// The page, with what is asked for and with what became of a form.
async fn room(
    api: &Api,
    session: &Session,
    id: InstanceId,
    asked: Option<String>,
    message: Option<String>,
) -> Result<RoomPage, PageError> {
    let view = api.broker.views.instance_view(session, id).await?;
    let is_ready = view.of.instance.state == InstanceState::Ready;
    let preview = match &asked {
        Some(prefix) if is_ready => Some(preview(api, &view, prefix).await?),
        _ => None,
    };
    Ok(RoomPage {
        // Members count the keys for each preview: such a page stays as it is.
        shell: Shell {
            follows: preview.is_none() && message.is_none(),
            ..Shell::of_instance("Room", &view, &api.broker, session)
        },
        href: format!("{}/room", path_of(&view.of.instance.id)),
        backups: backups_of(&view.of.instance.id),
        name: view.name().to_owned(),
        is_ready,
        prefix: asked.unwrap_or_default(),
        prefix_max: KEY_PREFIX_BYTES_MAX,
        preview,
        message,
    })
}

async fn preview(api: &Api, view: &InstanceView, prefix: &str) -> Result<Preview, PageError> {
    let upkeep = &api.broker.upkeep;
    let refusal = upkeep.lacks_members(&view.of).await;
    let refusal = refusal.map(|reason| format!("{}.", capitalized(&reason)));
    let deletes = !prefix.is_empty();
    let effect = match deletes {
        false => NO_KEYS.to_owned(),
        true if refusal.is_some() => String::new(),
        true => effect(prefix, upkeep.count_to_delete(&view.of, prefix).await?),
    };
    Ok(Preview {
        refusal,
        effect,
        deletes,
    })
}

/// What becomes of the keys with a prefix; `count`: how many there are, where the members tell.
fn effect(prefix: &str, count: Option<u64>) -> String {
    match count {
        Some(0) => format!("No key begins with “{prefix}”. {NO_KEYS}"),
        Some(1) => format!("1 key begins with “{prefix}” now. It is deleted for good."),
        Some(count) => {
            let keys = counted(count, "key");
            format!("{keys} begin with “{prefix}” now. They are deleted for good.")
        }
        None => format!(
            "The members do not say how many keys begin with “{prefix}”. All of them are deleted for good."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_deleted_is_told_by_its_number() {
        let told = |count| effect("/old/", count);
        assert_eq!(
            told(Some(0)),
            "No key begins with “/old/”. No key is deleted."
        );
        assert_eq!(
            told(Some(1)),
            "1 key begins with “/old/” now. It is deleted for good."
        );
        assert_eq!(
            told(Some(30)),
            "30 keys begin with “/old/” now. They are deleted for good."
        );
        assert!(told(None).starts_with("The members do not say how many keys"));
    }
}
