# A whole Rails application in one file: notes, kept in PostgreSQL.
require "logger"
require "rails"
require "active_record/railtie"
require "action_controller/railtie"

class Notes < Rails::Application
  config.root = __dir__
  config.eager_load = false
  config.hosts.clear
  config.logger = Logger.new($stdout)
  config.secret_key_base = ENV.fetch("SECRET_KEY_BASE") { SecureRandom.hex(64) }
  routes.append { resources :notes, only: %i[index create] }
end

class Note < ActiveRecord::Base
end

class NotesController < ActionController::API
  before_action { Schema.ensure! }
  rescue_from(ActiveRecord::ConnectionNotEstablished) { head :service_unavailable }

  def index
    render json: Note.order(:id).map { |note| { id: note.id, text: note.text } }
  end

  def create
    note = Note.create!(text: params.require(:text))
    render json: { id: note.id, text: note.text }, status: :created
  end
end

# The table, made by whoever comes first.
module Schema
  def self.ensure!
    return if @done
    ActiveRecord::Base.establish_connection(ENV.fetch("DATABASE_URL"))
    ActiveRecord::Base.connection.execute("CREATE TABLE IF NOT EXISTS notes (id SERIAL PRIMARY KEY, text TEXT NOT NULL)")
    @done = true
  end
end

Rails.application.initialize!
run Rails.application
